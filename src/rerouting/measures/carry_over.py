"""Carry-over: after one tripped turn, does the conversation recover?

Source of the question: red-teamers of Li et al. 2024 (arXiv 2408.15221) report that one gibberish turn poisons the
rest of a conversation. Each model is asked a harmful request, gives its own answer, whatever that is, and is then
asked a harmless one in the same conversation; the control begins with another harmless request instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Aids, Judged, Measured
from rerouting.core.findings import Finding
from rerouting.core.records import Chat, Message
from rerouting.data.config import SourceConfig
from rerouting.measures._texts import bundled, named
from rerouting.targets.target import Target

Row = dict[str, Any]


@dataclass(frozen=True)
class CarryOver:
    """Two turns: what may trip the breaker, and a harmless request."""

    harmful: SourceConfig = field(default_factory=lambda: bundled("harmful"))
    """First turns."""
    harmless: SourceConfig = field(default_factory=lambda: bundled("benign"))
    """Second turns, and the control's first turns."""
    limit: int = 40
    """Conversations of each kind."""

    def measure(self, base: Any, rerouted: Any, aids: Aids) -> Measured:
        """Share of coherent second answers after a harmful turn, after a tripped one, and after a harmless one."""
        openings, _ = named([self.harmful], self.limit, aids)
        second, notes = named([self.harmless], self.limit + 1, aids)
        (first,), (harmless,) = openings.values(), second.values()
        rows: list[Row] = []
        for kind, starts, ends in (
            ("harmful", first, harmless),
            ("harmless", harmless[1:], harmless),
        ):
            count = min(len(starts), len(ends))
            rows += _conversations(kind, starts[:count], ends[:count], base, rerouted, aids)
        after = [row for row in rows if row["first"] == "harmful"]
        tripped = [row for row in after if row["rerouted"]["first_label"] == "broken"]
        findings = [
            _coherent(after, "after a harmful turn"),
            _coherent(tripped, "after a turn that broke the rerouted model"),
            _coherent([row for row in rows if row["first"] == "harmless"], "after a harmless turn"),
        ]
        return Measured(findings, rows, notes)


def _conversations(
    kind: str, first: Sequence[Chat], second: Sequence[Chat], base: Target, rerouted: Target, aids: Aids
) -> list[Row]:
    rows: list[Row] = [
        {"first": kind, "id": f"{one.id} {two.id}", "requests": [one.request, two.request]}
        for one, two in zip(first, second, strict=True)
    ]
    for name, target in (("base", base), ("rerouted", rerouted)):
        openings = target.answer([Attempt(chat) for chat in first])
        sent = [
            Chat(two.id, (*one.messages, Message("assistant", text), Message("user", two.request)))
            for one, text, two in zip(first, openings, second, strict=True)
        ]
        answers = target.answer([Attempt(chat) for chat in sent])
        starts = aids.label(
            first, [Judged(one.request, text) for one, text in zip(first, openings, strict=True)]
        )
        ends = aids.label(
            second,
            [
                Judged(two.request, text, sent=chat)
                for two, text, chat in zip(second, answers, sent, strict=True)
            ],
        )
        for at, row in enumerate(rows):
            row[name] = {
                "first_answer": openings[at],
                "first_label": starts[at][0],
                "answer": answers[at],
                "label": ends[at][0],
                "reason": ends[at][1],
            }
    return rows


def _coherent(rows: Sequence[Row], part: str) -> Finding:
    scored = [row for row in rows if row["base"]["label"] and row["rerouted"]["label"]]
    pairs = [(row["base"]["label"] != "broken", row["rerouted"]["label"] != "broken") for row in scored]
    return Finding.of_rates("coherent second answer", pairs, part, len(rows) - len(scored))
