"""Over-refusal: what becomes of harmless requests, by category: complied with, refused, or broken.

Source of the question: Röttger et al. 2024 (XSTest, arXiv 2308.01263), Cui et al. 2024 (OR-Bench, arXiv 2405.20947),
and Zou et al. 2024, Table 3: 500 English WildChat requests to GPT-4, refusals by keywords, and by perplexity for
circuit breakers, whose refusal is gibberish. Here the two are shown apart, by the rules of judges/refusal_words and
judges/broken; a rerouted model "refuses" in the paper's sense where it refuses or breaks.

Each answer is compared with the other model's. Were the base's compared with itself, it would never be broken, and
every prompt on which a small model loops by chance would count against the rerouted one: SmolLM2 with random noise on
its weights (KL 0.02) "lost" 9 points that way (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Aids, Judged, Measured
from rerouting.core.findings import MODELS, Finding
from rerouting.core.records import Chat, shown
from rerouting.data.config import SourceConfig
from rerouting.measures._texts import bundled, named
from rerouting.targets.target import Target

LABELS = {"complied": "answered", "refused": "refused", "broken": "broken"}
Row = dict[str, Any]


def _bundled() -> list[SourceConfig]:
    return [bundled("borderline"), bundled("benign")]


@dataclass(frozen=True)
class OverRefusal:
    """Both models answer harmless requests, greedily."""

    sources: list[SourceConfig] = field(default_factory=_bundled)
    """Harmless requests: the bundled test ones, xstest, or_bench, wildchat, …"""
    limit: int | None = None
    """Requests taken of each source, spread evenly; null for all."""

    def measure(self, base: Any, rerouted: Any, aids: Aids) -> Measured:
        """Shares of complied, refused and broken, for each source and its categories."""
        found, notes = named(self.sources, self.limit, aids)
        rows = [row for name, chats in found.items() for row in _rows(name, chats, base, rerouted, aids)]
        findings: list[Finding] = []
        for name in found:
            own = [row for row in rows if row["source"] == name]
            findings += _shares(own, name)
            categories = sorted({row["category"] for row in own} - {""})
            for category in categories if len(categories) > 1 else ():
                findings += _shares([row for row in own if row["category"] == category], f"{name}/{category}")
        return Measured(findings, rows, notes)


def _rows(name: str, chats: list[Chat], base: Target, rerouted: Target, aids: Aids) -> list[Row]:
    rows: list[Row] = [
        {
            "source": name,
            "id": chat.id,
            "category": chat.category,
            "messages": list(map(shown, chat.messages)),
        }
        for chat in chats
    ]
    answers = [target.answer([Attempt(chat) for chat in chats]) for target in (base, rerouted)]
    beside: list[Sequence[str | None]] = [answers[1], [None] * len(chats)]  # None: the base's own
    for key, texts, others in zip(MODELS, answers, beside, strict=True):
        judged = [
            Judged(chat.request, text, reference=other)
            for chat, text, other in zip(chats, texts, others, strict=True)
        ]
        labels = aids.label(chats, judged)
        for row, text, (label, reason) in zip(rows, texts, labels, strict=True):
            row[key] = {"answer": text, "label": label, "reason": reason}
    return rows


def _shares(rows: Sequence[Row], part: str) -> list[Finding]:
    scored = [row for row in rows if row["base"]["label"] and row["rerouted"]["label"]]
    return [
        Finding.of_rates(
            name,
            [(row["base"]["label"] == label, row["rerouted"]["label"] == label) for row in scored],
            part,
            len(rows) - len(scored),
        )
        for name, label in LABELS.items()
    ]
