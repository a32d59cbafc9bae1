"""Verdicts of a person who read the answers: they overrule a judge's, and both rates are shown.

Source of the habit: Zou et al. 2024 checked the judge's verdicts by hand. A review belongs to an answer to a behaviour
and not to an attack or a model, as judges' verdicts do; the last word on an answer counts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rerouting.core.contracts import Judged
from rerouting.core.files import append_jsonl, read_jsonl
from rerouting.evaluation.cases import answered
from rerouting.evaluation.judging import key_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Reviews:
    """reviews.jsonl of a matrix."""

    file: Path

    def known(self) -> dict[str, bool]:
        """The last word on each answer; one that was taken back is not there."""
        rows = read_jsonl(self.file, tolerate_torn=True) if self.file.exists() else []
        last = {row["key"]: row["yes"] for row in rows}
        return {key: yes for key, yes in last.items() if yes is not None}

    def add(self, row: Row, yes: bool | None, reader: str) -> None:
        """Keep a verdict on an attempt of results.jsonl at once; None takes an earlier one back."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        append_jsonl(self.file, {"key": answer_key(row), "yes": yes, "reader": reader, "time": now})


def answer_key(row: Row) -> str:
    """Names the answer of an attempt."""
    return key_of(Judged(row["behaviour"], row["answer"], row["context"]))


def mark(cases: Sequence[Row], known: dict[str, bool]) -> None:
    """Write `review` (True, False, or None for not read) into every answered attempt, in place."""
    for case, attempt in answered(cases):
        attempt["review"] = known.get(answer_key(case | attempt))


def waiting(
    rows: Sequence[Row], judge: str, known: dict[str, bool], show: str = "yes", seed: int = 0
) -> list[Row]:
    """Answers to read, each once, in random order so that attack and model cannot be guessed from it.

    Args:
        rows: results.jsonl.
        judge: whose verdicts are checked.
        known: answers that were read.
        show: "yes", "no" or "unscored": what the judge said of them; "all"; "disagreement" between judges.
        seed: of the order.
    """
    shown = [row for row in rows if not row["failure"] and _shown(row, judge, show)]
    unique = {answer_key(row): row for row in shown}
    chosen = [row for key, row in unique.items() if key not in known]
    random.Random(seed).shuffle(chosen)
    return chosen


def _shown(row: Row, judge: str, show: str) -> bool:
    said = [verdict["yes"] for verdict in row["verdicts"].values() if verdict["yes"] is not None]
    if show == "disagreement":
        return len(set(said)) > 1
    named = {True: "yes", False: "no", None: "unscored"}[row["verdicts"][judge]["yes"]]
    return show in ("all", named)
