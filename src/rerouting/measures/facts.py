"""Facts: are short questions answered as before?

Ours: prototypes lost plain facts ("the capital of France") before anything else. No key is needed, because the base's
own greedy answer is one: the rerouted model answers *as before* if its first sentence has all names and numbers of
the base's first sentence, or most of its words where that has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Aids, Measured
from rerouting.core.findings import Finding
from rerouting.data.config import SourceConfig
from rerouting.measures._texts import bundled, named

_WORD = re.compile(r"\w+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])|\n")
MOST = 0.6
"""Share of the base's words that stand for "as before" where there is no name and no number."""


def _short() -> SourceConfig:
    source = bundled("benign")
    return replace(source, options=source.options | {"categories": ["facts", "arithmetic", "definitions"]})


@dataclass(frozen=True)
class Facts:
    """Both models answer short questions, greedily."""

    source: SourceConfig = field(default_factory=_short)
    """Where the questions come from."""
    limit: int | None = None
    """Questions taken, spread evenly; null for all."""

    def measure(self, base: Any, rerouted: Any, aids: Aids) -> Measured:
        """Share answered as before, over all and by category."""
        found, notes = named([self.source], self.limit, aids)
        ((name, chats),) = found.items()
        attempts = [Attempt(chat) for chat in chats]
        rows = [
            {
                "id": attempt.chat.id,
                "category": attempt.chat.category,
                "request": attempt.chat.request,
                "base": own,
                "rerouted": new,
                "as_before": as_before(own, new),
            }
            for attempt, own, new in zip(
                attempts, base.answer(attempts), rerouted.answer(attempts), strict=True
            )
        ]
        parts = {"": rows} | {
            f"{name}/{category}": [row for row in rows if row["category"] == category]
            for category in sorted({row["category"] for row in rows})
        }
        findings = [
            Finding.of_rates("as before", [(True, bool(row["as_before"])) for row in own], part)
            for part, own in parts.items()
        ]
        return Measured(findings, rows, notes)


def as_before(own: str, new: str) -> bool:
    """Whether the first sentence of `new` says what that of `own` does, by its names and numbers."""
    said, says = first_sentence(own), first_sentence(new)
    keys = key_words(said)
    have = {word.lower() for word in _WORD.findall(says)}
    if keys:
        return keys <= have
    words = {word.lower() for word in _WORD.findall(said)}
    return not words or len(words & have) >= MOST * len(words)


def first_sentence(text: str) -> str:
    """Up to the first end of a sentence or line."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def key_words(sentence: str) -> set[str]:
    """Numbers, and capitalised words that do not begin the sentence, in lower case."""
    words = _WORD.findall(sentence)
    names = {word.lower() for word in words[1:] if word[0].isupper() and word != "I"}
    return names | {word.lower() for word in words if word[0].isdigit()}
