"""One trial of a selection: trained, attacked on validation behaviours, measured on validation texts; each once."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rerouting.core.config import from_mapping, load_mapping
from rerouting.core.conversion import plain
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, sha256_of
from rerouting.core.layering import check, defaults, merged, under
from rerouting.core.recipes import recipe_path
from rerouting.core.rundir import hold
from rerouting.evaluation.attack_config import AttackConfig
from rerouting.evaluation.kept_config import KeptConfig
from rerouting.evaluation.metrics import metrics_of
from rerouting.evaluation.select_config import SelectConfig
from rerouting.pipeline.attack import attack_run
from rerouting.pipeline.kept import kept_run
from rerouting.pipeline.run import execute
from rerouting.training.config import EvaluationConfig, RunConfig

Row = dict[str, Any]
SHARED = {
    "attacks": ("cases/*.base-*.jsonl", "likelihoods/*/*"),
    "kept": ("answers/base-*.jsonl", "likelihoods/*/*"),
}
"""What one trial's folder can take over from another's: all that is the base model's alone."""


@dataclass(frozen=True)
class Trial:
    """Values of the space, a seed, and how much of the training is done.

    Attributes:
        values: by dotted key.
        seed: of the run.
        share: of training.steps.
    """

    values: Row
    seed: int
    share: float = 1.0

    def config(self, config: SelectConfig) -> RunConfig:
        """The run's configuration; nothing is evaluated by the run itself.

        Raises:
            UserError: a key or value that a run does not have.
        """
        run = replace(run_config(config, self.values), seed=self.seed, evaluation=EvaluationConfig(sets=[]))
        steps = max(1, round(self.share * run.training.steps))
        # the completions are those of one seed, so that trials differ in what is varied alone
        sampling = replace(
            run.sampling, seed=config.seeds[0] if run.sampling.seed is None else run.sampling.seed
        )
        return replace(run, training=replace(run.training, steps=steps), sampling=sampling)

    def name(self, config: SelectConfig) -> str:
        """A folder's name that no other trial has."""
        return f"{sha256_of(plain(self.config(config)))[:10]}-seed-{self.seed}"


def run_config(config: SelectConfig, values: Row) -> RunConfig:
    """The recipe with the common changes and a trial's values.

    Raises:
        UserError: a key or value that a run does not have.
    """
    layers = merged(defaults(RunConfig), load_mapping(recipe_path(config.run)), RunConfig)
    for where, given in (("changes", config.changes), ("space", values)):
        for key, value in given.items():
            layer = under(key, value)
            check(layer, RunConfig, where)
            layers = merged(layers, layer, RunConfig)
    return from_mapping(RunConfig, layers, config.run)


def run_trial(config: SelectConfig, trial: Trial, out: Path) -> Row | None:
    """Make a trial in its folder of `out`, or read what it found; None while another process makes it.

    Returns:
        `metrics` by name, or `failed` with the reason; `seconds`.
    """
    folder = out / "trials" / trial.name(config)
    result = folder / "trial.json"
    if not result.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = hold(folder, ".trial.lock")
        except UserError:
            return None
        with lock:
            if not result.exists():
                began = time.monotonic()
                found = _made(config, trial, folder, out / "base")
                found["seconds"] = round(time.monotonic() - began, 1)
                atomic_write(result, json.dumps(found, indent=2) + "\n")
    read: Row = json.loads(result.read_text(encoding="utf-8"))
    return read


def _made(config: SelectConfig, trial: Trial, folder: Path, base: Path) -> Row:
    run = folder / "run"
    try:
        execute(trial.config(config), run)
        _take_over(base, folder)
        matrix = attack_run(_attacks(config, run), folder / "attacks")
        kept = kept_run(_measures(config, run), folder / "kept") if config.measures else {}
    except UserError as error:
        return {"failed": str(error)}
    _take_over(folder, base)
    if config.models == "none":
        shutil.rmtree(run / "model")
    return {"metrics": metrics_of(matrix, kept)}


def _attacks(config: SelectConfig, run: Path) -> AttackConfig:
    return AttackConfig(
        model=str(run),
        attacks=config.attacks,
        attack_options=config.attack_options,
        budget=config.budget,
        cases=config.cases,
        sources=config.sources,
        judges=config.judges,
        max_new_tokens=config.max_new_tokens,
    )


def _measures(config: SelectConfig, run: Path) -> KeptConfig:
    return KeptConfig(
        model=str(run),
        measures=config.measures,
        measure_options={name: config.measure_options.get(name, {}) for name in config.measures},
        max_new_tokens=config.max_new_tokens,
    )


def _take_over(source: Path, target: Path) -> None:
    """Copy what is the base model's alone, where the target does not have it."""
    for part, patterns in SHARED.items():
        for pattern in patterns:
            for file in (source / part).glob(pattern):
                copy = target / part / file.relative_to(source / part)
                if not copy.exists():
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    atomic_write(copy, file.read_bytes())
