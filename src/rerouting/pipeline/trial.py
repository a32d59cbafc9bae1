"""One trial of a selection: trained, attacked on validation behaviours, measured on validation texts; each once.

A trial trains on what the final run trains on: the recipe's evaluation sets are not answered, but what resembles them
is dropped from the circuit-breaker set as ever. (The retain set has no such items: the guard refuses them.)
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from rerouting.core.config import dump_yaml, from_mapping, load_mapping
from rerouting.core.conversion import plain
from rerouting.core.errors import InUseError, PassingError, UserError
from rerouting.core.files import atomic_write, sha256_of
from rerouting.core.layering import check, defaults, merged, under
from rerouting.core.recipes import recipe_path
from rerouting.core.rundir import hold
from rerouting.data.config import SourceConfig
from rerouting.data.loading import chats_of
from rerouting.evaluation.attack_config import AttackConfig
from rerouting.evaluation.kept_config import KeptConfig
from rerouting.evaluation.metrics import intervals_of, metrics_of
from rerouting.evaluation.select_config import SelectConfig
from rerouting.models.memory import free_memory, is_out_of_memory
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
        run = seeded(config, self.values, self.seed)
        steps = max(1, round(self.share * run.training.steps))
        harmful = [one.source for one in run.evaluation.sets if _has_targets(dump_yaml(one.source))]
        data = replace(run.data, evaluation=[*run.data.evaluation, *harmful])
        training = replace(run.training, steps=steps)
        return replace(run, data=data, training=training, evaluation=EvaluationConfig(sets=[]))

    def name(self, config: SelectConfig) -> str:
        """A folder's name that no other trial has."""
        return f"{sha256_of(plain(self.config(config)))[:10]}-seed-{self.seed}"


@cache
def _has_targets(source: str) -> bool:
    """Whether a source, as YAML, has chats with targets: harmful ones, as preparation sees it."""
    return any(chat.target for chat in chats_of(from_mapping(SourceConfig, yaml.safe_load(source), "")))


def seeded(config: SelectConfig, values: Row, seed: int) -> RunConfig:
    """A trial's run as it is trained in the end: all trials share completions, so that they differ in what is varied.

    Raises:
        UserError: a key or value that a run does not have.
    """
    run = run_config(config, values)
    own = config.seeds[0] if run.sampling.seed is None else run.sampling.seed
    return replace(run, seed=seed, sampling=replace(run.sampling, seed=own))


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
        `metrics` and `intervals` by name, or `failed` with the reason; `seconds`, of all processes that worked on it;
        `run`, its folder's name, a hash of its configuration.

    Raises:
        PassingError: a full disk, or a folder that cannot be written; the trial goes on when the same is run again.
    """
    folder = out / "trials" / trial.name(config)
    result = folder / "trial.json"
    if not result.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = hold(folder, ".trial.lock")
        except InUseError:
            return None
        with lock:
            if not result.exists():
                clock = _Clock(folder / "seconds")
                found = _made(config, trial, folder, out / "base", clock)
                atomic_write(result, json.dumps(found | {"seconds": clock.all()}, indent=2) + "\n")
    read: Row = json.loads(result.read_text(encoding="utf-8"))
    return read | {"run": folder.name}


class _Clock:
    """Seconds spent on a trial, those of killed processes up to their last finished part."""

    def __init__(self, file: Path) -> None:
        self.file, self.began = file, time.monotonic()
        self.before = float(file.read_text()) if file.exists() else 0.0

    def all(self) -> float:
        """Write them down."""
        seconds = round(self.before + time.monotonic() - self.began, 1)
        atomic_write(self.file, f"{seconds}\n")
        return seconds


def _made(config: SelectConfig, trial: Trial, folder: Path, base: Path, clock: _Clock) -> Row:
    run = folder / "run"
    try:
        execute(trial.config(config), run)
        clock.all()
        _take_over(base, folder)
        matrix = attack_run(attacks_of(config, run), folder / "attacks")
        clock.all()
        kept = kept_run(_measures(config, run), folder / "kept") if config.measures else {}
    except PassingError:
        raise
    except UserError as error:
        return {"failed": str(error)}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
    else:
        _take_over(folder, base)
        return {"metrics": metrics_of(matrix, kept), "intervals": intervals_of(matrix, kept)}
    free_memory()
    return {
        "failed": f"out of memory ({reason}) — lower training.micro_batch, and remove {folder} to try it again"
    }


def remove_models(out: Path, names: Iterable[str]) -> None:
    """Remove the merged models that finished trials of a selection wrote."""
    for name in names:
        folder = out / "trials" / name
        if (folder / "trial.json").exists():
            shutil.rmtree(folder / "run" / "model", ignore_errors=True)


def attacks_of(config: SelectConfig, run: Path) -> AttackConfig:
    """How a trial is attacked."""
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
