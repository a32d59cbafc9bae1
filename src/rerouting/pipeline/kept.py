"""What circuit breakers cost: every measure on both models, its result kept, the table written after each.

Stopped, it goes on: finished measures are read back, and answers that were given are not generated again. Another
version of the package, other options, files or models make other results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rerouting import __version__
from rerouting.core.contracts import Aids, Judged, Measured
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, sha256_of, write_jsonl
from rerouting.core.finder import Component, available, build
from rerouting.core.manifest import environment
from rerouting.core.records import Chat
from rerouting.core.rundir import hold
from rerouting.evaluation.judging import Scorer, label_of
from rerouting.evaluation.kept_config import KeptConfig
from rerouting.evaluation.kept_table import write_tables
from rerouting.judges.broken import Broken
from rerouting.models.loading import LoadedModel
from rerouting.pipeline.made_of import check_named, sources_of
from rerouting.pipeline.pair import digest, pair_of
from rerouting.pipeline.unseen import Unseen
from rerouting.targets.remembered import Remembered

Row = dict[str, Any]


def kept_run(config: KeptConfig, out: Path) -> Row:
    """Measure both models into `out`, or go on with it.

    Returns:
        What summary.json holds.

    Raises:
        UserError: no such run or measure, options that it does not have, or data that it cannot read; what was
            measured stays. A measure that is there by "all" alone is noted as not run instead.
    """
    measures = _measures(config)
    pair = pair_of(config.model, config.base)
    digests = {name: digest(loaded) for name, loaded in pair.items()}
    out.mkdir(parents=True, exist_ok=True)
    with hold(out, ".evaluate.lock"):
        targets = {
            name: _remembered(loaded, name, digests[name], config, out) for name, loaded in pair.items()
        }
        base, rerouted = targets.values()
        folder = out / "likelihoods" / digests["base"][:8]
        aids = Aids(
            config.seed,
            _Labels(Scorer(pair["base"], config.max_new_tokens, folder, target=base)),
            build("targets.assistants", Component(config.assistant, config.assistant_options)),
            Unseen(Path(config.model), pair["base"]),
            out,
        )
        summary: Row = {"model": config.model, "models": digests, "measures": {}} | environment()
        for name, measure in measures.items():
            short = _short(name)
            file = out / "measures" / f"{short}-{_identity(name, measure, config, digests)}.json"
            try:
                if not file.exists():
                    measured = measure.measure(base, rerouted, replace(aids, progress=partial(_say, short)))
                    _write(measured, file, out / "rows" / f"{short}.jsonl")
                summary["measures"][short] = json.loads(file.read_text(encoding="utf-8"))
            except UserError as error:
                if name in config.measures:
                    raise
                summary["measures"][short] = {"findings": [], "notes": [f"not run: {error}"]}
            atomic_write(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
            write_tables(summary, out)
    return summary


@dataclass(frozen=True)
class _Labels:
    """Answered, refused or broken, as the rules see it beside a reference: the base's own answer if none is given."""

    scorer: Scorer

    def __call__(self, chats: Sequence[Chat], judged: Sequence[Judged]) -> list[tuple[str, str]]:
        if not chats:
            return []
        return [
            label_of(
                one
                if own.reference is None
                else replace(one, reference=own.reference, reference_nll=(), reference_end=None)
            )
            for one, own in zip(self.scorer.measured(chats, judged), judged, strict=True)
        ]


def _measures(config: KeptConfig) -> dict[str, Any]:
    """The measures with their options.

    Raises:
        UserError: none or an unknown one was named, or there are options for one that was not.
    """
    every = available("measures") if "all" in config.measures else ()
    names = list(dict.fromkeys([*(name for name in config.measures if name != "all"), *every]))
    check_named(config.measure_options, names, "measure_options")
    if not names:
        raise UserError("no measure was named", f"choose from: all, {', '.join(available('measures'))}")
    found = {name: build("measures", Component(name, config.measure_options.get(name, {}))) for name in names}
    for name, measure in found.items():
        if not hasattr(measure, "measure"):
            raise UserError(f"{name} has no method `measure`", "see core/contracts.py")
    return found


def _remembered(loaded: LoadedModel, name: str, mark: str, config: KeptConfig, out: Path) -> Remembered:
    file = out / "answers" / f"{name}-{mark[:8]}.{config.max_new_tokens}-tokens.jsonl"
    return Remembered(loaded, config.max_new_tokens, file, name)


def _identity(name: str, measure: Any, config: KeptConfig, digests: dict[str, str]) -> str:
    options = asdict(measure) if is_dataclass(measure) and not isinstance(measure, type) else {}
    used: list[Any] = [__version__, name, options, sources_of(name, options), digests]
    used += [Broken.version, config.seed, config.max_new_tokens, config.assistant, config.assistant_options]
    if version := getattr(measure, "version", None):  # of its rule, and of what it reads beside the sources
        used.append(version)
    return sha256_of(used)[:8]


def _write(measured: Measured, file: Path, rows: Path) -> None:
    """The rows first: a result that is there is whole."""
    write_jsonl(rows, measured.rows)
    found = {"findings": [one.as_dict() for one in measured.findings], "notes": measured.notes}
    atomic_write(file, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _short(name: str) -> str:
    """`path/to/mine.py:Mine` -> `Mine`."""
    return name.rpartition(":")[2]


def _say(name: str, line: str) -> None:
    sys.stderr.write(f"{name}: {line}\n")
