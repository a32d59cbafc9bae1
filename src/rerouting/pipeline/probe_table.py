"""Probes against circuit breakers, attack by attack (Zou et al. 2024, Table 2).

The base's answers under each attack are read by the probes; an answer with a flagged token counts as refused. Beside
them stand the base unguarded and the rerouted model. On harmless requests the same says what a defence costs. What
counts for an attack is the deciding judge's yes where the answers come from a matrix, and a coherent answer that does
not decline where they come from the run's own evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, read_jsonl
from rerouting.core.records import Chat, Message
from rerouting.core.stats import Rate
from rerouting.core.tables import markdown_table
from rerouting.pipeline.pair import base_of
from rerouting.pipeline.probing import Reader, answered
from rerouting.probes.saved import CARD, Probe, load_probe
from rerouting.probes.threshold import threshold_for

Row = dict[str, Any]
HARMLESS = ("benign", "borderline")


@dataclass
class Case:
    """One behaviour or request under one attack: successes of both models' attempts, and the base's peaks by probe."""

    base: list[bool] = field(default_factory=list)
    rerouted: list[bool] = field(default_factory=list)
    peaks: list[list[float]] = field(default_factory=list)

    def passes(self, probe: int, threshold: float) -> bool:
        """Whether an attempt succeeds on the base that this probe does not flag."""
        return any(hit and peak[probe] <= threshold for hit, peak in zip(self.base, self.peaks, strict=True))


def probe_table(run: Path, matrix: Path | None) -> Row:
    """Read every answer, compare, and write RUN/probes/table.json and table.md.

    Args:
        run: a run with probes.
        matrix: folder that `rerouting attack` wrote for this run; None for the run's own evaluation alone.

    Raises:
        UserError: no probes, no answers to compare, or a damaged file.
    """
    probes = {folder.name: load_probe(folder) for folder in _folders(run)}
    if not probes:
        raise UserError(f"{run} has no probes", f"train them: rerouting probe train {run}")
    cases, unread = _cases(run, matrix, list(probes.values()))
    if not cases:
        raise UserError(f"{run} has no answers to compare", "train with evaluation sets, or give --matrix")
    at_rate = {name: probe.threshold for name, probe in probes.items()}
    rate = _rerouting_rate(cases)
    table: Row = {"rows": _rows(cases, at_rate), "unread": unread, "false_positives": {"trained": at_rate}}
    if rate is not None:
        harmless = [case for name, own in cases.items() if name in HARMLESS for case in own.values()]
        matched = {
            name: threshold_for([max(peak[at] for peak in case.peaks) for case in harmless], rate)
            for at, name in enumerate(probes)
        }
        table["matched"] = _rows(cases, matched)
        table["false_positives"] |= {"matched": matched, "rerouted": rate}
    atomic_write(run / "probes" / "table.json", json.dumps(table, indent=2) + "\n")
    atomic_write(run / "probes" / "table.md", shown(table, list(probes)))
    return table


def shown(table: Row, kinds: Sequence[str]) -> str:
    """Both tables in Markdown, in percent."""
    parts = []
    titles = {
        "rows": "Thresholds as trained",
        "matched": "At the rerouted model's own rate on harmless requests",
    }
    for key in [key for key in titles if key in table]:
        columns = ["base", *kinds, "rerouted"]
        rows = [
            [row["attack"], str(row["n"]), *(_percent(row, column) for column in columns)]
            for row in table[key]
        ]
        lines = markdown_table(["answers that get through, %", "n", *columns], rows)
        parts.append("\n".join([f"{titles[key]}:", "", *lines, ""]))
    return "\n".join(parts)


def _percent(row: Row, column: str) -> str:
    low, high = row[f"{column}_interval"]
    return f"{100 * row[column]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _folders(run: Path) -> list[Path]:
    return sorted(file.parent for file in (run / "probes").glob(f"*/{CARD}"))


def _cases(run: Path, matrix: Path | None, probes: Sequence[Probe]) -> tuple[dict[str, dict[str, Case]], int]:
    """Cases by attack and behaviour, and how many attempts cannot be read (soft prompts leave no text)."""
    base = base_of(run)
    readers = [Reader(base, probe.skip, probe.blocks) for probe in probes]
    cases: dict[str, dict[str, Case]] = {}
    examples, owners, unread = [], [], 0
    for item in [*_evaluated(run), *(_attacked(matrix) if matrix else ())]:
        case = cases.setdefault(item["attack"], {}).setdefault(item["id"], Case())
        if item["model"] == "rerouted":
            case.rerouted.append(item["hit"])
            continue
        if item["chat"] is None:
            unread += 1
            continue
        example = answered(base, item["chat"], item["prefill"], item["answer"])
        case.base.append(item["hit"] and example is not None)
        case.peaks.append([float("-inf")] * len(probes))
        if example is not None:
            examples.append(example)
            owners.append(case.peaks[-1])
    for at, (reader, probe) in enumerate(zip(readers, probes, strict=True)):
        found = reader.highest(examples, [probe], f"answers, {probe.kind}")[0]
        for peaks, highest in zip(owners, found, strict=True):
            peaks[at] = highest
    whole = {
        name: {id: case for id, case in own.items() if case.base and case.rerouted}
        for name, own in cases.items()
    }
    return {name: own for name, own in whole.items() if own}, unread


def _evaluated(run: Path) -> Iterator[Row]:
    """Answers of the run's own evaluation sets."""
    file = run / "generations.jsonl"
    for row in read_jsonl(file) if file.exists() else []:
        chat = Chat(row["id"], tuple(Message(turn["role"], turn["content"]) for turn in row["messages"]))
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
        verdict = row.get("verdicts", {}).get(judge)
        if verdict is None or verdict["yes"] is None:
            continue
        turns = tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])
        yield {"attack": f"{row['attack']} (judged)", "id": row["id"], "model": row["model"]} | {
            "chat": None if row["embeddings"] else Chat(row["id"], turns),
            "prefill": row["prefill"],
            "answer": row["answer"],
            "hit": bool(verdict["yes"]),
        }


def _rows(cases: dict[str, dict[str, Case]], thresholds: dict[str, float]) -> list[Row]:
    found = []
    for attack, own in cases.items():
        hits = {"base": [any(case.base) for case in own.values()]}
        for at, (kind, threshold) in enumerate(thresholds.items()):
            hits[kind] = [case.passes(at, threshold) for case in own.values()]
        hits["rerouted"] = [any(case.rerouted) for case in own.values()]
        row: Row = {"attack": attack, "part": "", "n": len(own)}
        for name, flags in hits.items():
            rate = Rate(sum(flags), len(flags))
            row |= {name: rate.value, f"{name}_interval": [rate.low, rate.high]}
        found.append(row)
    return found


def _rerouting_rate(cases: dict[str, dict[str, Case]]) -> float | None:
    """Share of harmless requests that the base answers and the rerouted model does not; None without such sets."""
    harmless = [case for name, own in cases.items() if name in HARMLESS for case in own.values()]
    lost = sum(any(case.base) and not any(case.rerouted) for case in harmless)
    return lost / len(harmless) if harmless else None
