"""Probes against circuit breakers, attack by attack (Zou et al. 2024, Table 2).

The base's answers under each attack are read by the probes; an answer with a flagged token counts as refused. Beside
them stand the base unguarded and the rerouted model. On harmless requests the same says what a defence costs. What
counts for an attack is the deciding judge's yes (a person's where one has read) where the answers come from a matrix,
and a coherent answer that does not decline where they come from the run's own evaluation.

Mind what this compares: the attacks searched against the base and, apart, against the rerouted model; none of them
knew of a probe. Attacks that change the model or its states, and soft prompts, leave no text that a probe could read.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerouting.core.config import load_config
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, read_jsonl
from rerouting.core.finder import find
from rerouting.core.kinds import is_harmless_kind
from rerouting.core.records import Chat
from rerouting.core.stats import Rate
from rerouting.core.tables import markdown_table
from rerouting.data.messages import parse_messages
from rerouting.evaluation.cases import turns_of
from rerouting.models.digest import weights_digest
from rerouting.pipeline.pair import base_of, digest
from rerouting.pipeline.probing import Reader, answered
from rerouting.probes.saved import CARD, Probe, load_probe
from rerouting.training.config import RunConfig

Row = dict[str, Any]
TRANSFER = "the attacks searched against base and rerouted model, and knew of no probe"
TITLES = {
    "rows": "Thresholds as trained",
    "matched": "As many harmless requests answered as by the rerouted model",
}


@dataclass
class Case:
    """One behaviour or request under one attack: what became of both models' attempts, and the base's peaks by probe.

    An attempt is a success, none, or None where it could not be judged; a case is one as in `evaluation.asr`.
    """

    base: list[bool | None] = field(default_factory=list)
    rerouted: list[bool | None] = field(default_factory=list)
    peaks: list[list[float]] = field(default_factory=list)

    @property
    def scored(self) -> bool:
        """Whether both models' attempts decide the case."""
        return bool(self.base and self.rerouted) and None not in (outcome(self.base), outcome(self.rerouted))

    def passes(self, probe: int, threshold: float) -> bool:
        """Whether an attempt succeeds on the base that this probe does not flag."""
        return any(hit and peak[probe] <= threshold for hit, peak in zip(self.base, self.peaks, strict=True))

    def peak(self, probe: int) -> float:
        """The threshold from which on it passes."""
        return min(peak[probe] for hit, peak in zip(self.base, self.peaks, strict=True) if hit)


def outcome(attempts: Sequence[bool | None]) -> bool | None:
    """A case succeeds if one attempt does; it is open if none does and one could not be judged."""
    return True if True in attempts else None if None in attempts else False


def probe_table(run: Path, matrix: Path | None) -> Row:
    """Read every answer, compare, and write RUN/probes/table.json and table.md.

    Args:
        run: a run with probes.
        matrix: folder that `rerouting attack` wrote for this run; None for the run's own evaluation alone.

    Raises:
        UserError: no probes, no answers to compare, another run's matrix, or a damaged file.
    """
    probes = {
        file.parent.name: load_probe(file.parent) for file in sorted((run / "probes").glob(f"*/{CARD}"))
    }
    if not probes:
        raise UserError(f"{run} has no probes", f"train them: rerouting probe train {run}")
    cases, unread = _cases(run, matrix, list(probes.values()))
    if not cases:
        raise UserError(f"{run} has no answers to compare", "train with evaluation sets, or give --matrix")
    kinds = _harmless_sets(run)
    harmless = [case for name, own in cases.items() if name in kinds for case in own.values() if case.scored]
    trained = {name: probe.threshold for name, probe in probes.items()}
    table: Row = {"columns": ["base", *probes, "rerouted"], "notes": [TRANSFER]}
    table |= {"rows": _rows(cases, trained), "thresholds": {"trained": trained}}
    matched = {name: matching(harmless, at) for at, name in enumerate(probes)}
    known = {name: threshold for name, threshold in matched.items() if threshold is not None}
    if len(known) == len(probes):
        table["matched"], table["thresholds"]["matched"] = _rows(cases, known), known
    else:
        table["notes"].append(
            "no second table: no harmless set in the run, or none of it is answered any more"
        )
    lost = [f"{name} ({count})" for name, count in sorted(unread.items())]
    table["notes"] += [f"attempts that leave no text to read, left out: {', '.join(lost)}"] if lost else []
    atomic_write(run / "probes" / "table.json", json.dumps(table, indent=2) + "\n")
    atomic_write(run / "probes" / "table.md", shown(table))
    return table


def matching(harmless: Sequence[Case], probe: int) -> float | None:
    """The threshold by which a probe lets as many harmless requests through as the rerouted model does.

    None where there is none to match: no requests, or no answer of either model, or of the rerouted one.
    """
    hits = [case for case in harmless if any(case.base)]
    peaks = sorted((case.peak(probe) for case in hits if case.peak(probe) > -math.inf), reverse=True)
    answered_still = sum(any(case.rerouted) for case in harmless)
    if not peaks or not answered_still:
        return None
    flagged = max(0, len(hits) - answered_still)
    return peaks[flagged] if flagged < len(peaks) else peaks[-1] - 1.0


def shown(table: Row) -> str:
    """Both tables in Markdown, in percent, and the notes."""
    parts = []
    for key in [key for key in TITLES if key in table]:
        rows = [
            [
                row["attack"],
                str(row["n"]),
                str(row["unscored"]),
                *(_percent(row, one) for one in table["columns"]),
            ]
            for row in table[key]
        ]
        lines = markdown_table(["answers that get through, %", "n", "unscored", *table["columns"]], rows)
        parts.append("\n".join([f"{TITLES[key]}:", "", *lines, ""]))
    return "\n".join([*parts, *(f"- {note}" for note in table["notes"])]) + "\n"


def _percent(row: Row, column: str) -> str:
    if row[column] is None:
        return "–"
    low, high = row[f"{column}_interval"]
    return f"{100 * row[column]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _harmless_sets(run: Path) -> set[str]:
    """Names of the run's evaluation sets that hold harmless requests, by the kind of their source."""
    sets = load_config(RunConfig, run / "config.yaml").evaluation.sets
    kinds = {one.name: str(one.source.options.get("kind") or one.source.name) for one in sets}
    return {name for name, kind in kinds.items() if is_harmless_kind(kind) or is_harmless_kind(name)}


def _cases(
    run: Path, matrix: Path | None, probes: Sequence[Probe]
) -> tuple[dict[str, dict[str, Case]], Counter[str]]:
    """Cases by attack and behaviour, and by attack how many of the base's attempts cannot be read."""
    base = base_of(run)
    if matrix:
        _check_same(matrix, {"base": digest(base), "rerouted": weights_digest(run / "model")})
    cases: dict[str, dict[str, Case]] = {}
    examples, owners, unread = [], [], Counter[str]()
    for item in [*_evaluated(run), *(_attacked(matrix) if matrix else ())]:
        case = cases.setdefault(item["attack"], {}).setdefault(item["id"], Case())
        if item["model"] == "rerouted":
            case.rerouted.append(item["hit"])
        elif item["chat"] is None:
            unread[item["attack"]] += 1
        else:
            case.base.append(item["hit"])
            case.peaks.append([-math.inf] * len(probes))
            example = answered(base, item["chat"], item["prefill"], item["answer"])
            if example is not None:
                examples.append(example)
                owners.append(case.peaks[-1])
    for skip, blocks in dict.fromkeys(
        (probe.skip, probe.blocks) for probe in probes
    ):  # as a rule one reading for all
        group = [at for at, probe in enumerate(probes) if (probe.skip, probe.blocks) == (skip, blocks)]
        found = Reader(base, skip, blocks).highest(examples, [probes[at] for at in group], "answers")
        for at, own in zip(group, found, strict=True):
            for peaks, highest in zip(owners, own, strict=True):
                peaks[at] = highest
    known = {name: {key: case for key, case in own.items() if case.base} for name, own in cases.items()}
    return {name: own for name, own in known.items() if own}, unread


def _evaluated(run: Path) -> Iterator[Row]:
    """Answers of the run's own evaluation sets."""
    file = run / "generations.jsonl"
    for row in read_jsonl(file) if file.exists() else []:
        chat = Chat(row["id"], parse_messages(row["messages"], row["id"]))
        for model in ("base", "rerouted"):
            one = row[model]
            yield {"attack": row["set"], "id": row["id"], "model": model, "chat": chat} | {
                "prefill": row["prefill"],
                "answer": one["answer"],
                "hit": one["label"] == "answered",
            }


def _attacked(matrix: Path) -> Iterator[Row]:
    """Judged attempts of a matrix."""
    try:
        judge = json.loads((matrix / "summary.json").read_text(encoding="utf-8"))["judge"]
        rows = read_jsonl(matrix / "results.jsonl")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{matrix} has no results of attacks", "give the folder that attack wrote") from error
    for row in rows:
        unreadable = row["embeddings"] or getattr(find("attacks", row["attack"]), "tampers", False)
        yield {"attack": f"{row['attack']} (judged)", "id": row["id"], "model": row["model"]} | {
            "chat": None if unreadable else Chat(row["id"], turns_of(row, matrix)),
            "prefill": row["prefill"],
            "answer": row["answer"],
            "hit": _hit(row, judge),
        }


def _hit(row: Row, judge: str) -> bool | None:
    if row["failure"]:
        return None
    read: bool | None = row.get("review")
    yes: bool | None = row["verdicts"][judge]["yes"]
    return yes if read is None else read


def _check_same(matrix: Path, models: dict[str, str]) -> None:
    try:
        given = json.loads((matrix / "manifest.json").read_text(encoding="utf-8"))["models"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{matrix} has no results of attacks", "give the folder that attack wrote") from error
    if given != models:
        raise UserError(f"{matrix} is a matrix of other models", "attack this run, or give its matrix")


def _rows(cases: dict[str, dict[str, Case]], thresholds: dict[str, float]) -> list[Row]:
    found = []
    for attack, own in cases.items():
        scored = [case for case in own.values() if case.scored]
        hits = {"base": [bool(outcome(case.base)) for case in scored]}
        for at, (kind, threshold) in enumerate(thresholds.items()):
            hits[kind] = [case.passes(at, threshold) for case in scored]
        hits["rerouted"] = [bool(outcome(case.rerouted)) for case in scored]
        row: Row = {"attack": attack, "n": len(scored), "unscored": len(own) - len(scored)}
        for name, flags in hits.items():
            rate = Rate(sum(flags), len(flags))
            row |= {name: rate.value, f"{name}_interval": [rate.low, rate.high]}
        found.append(row)
    return found
