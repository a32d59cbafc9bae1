"""Facts: are short questions answered as before?

Ours: prototypes lost plain facts ("the capital of France") before anything else. No key is needed, because the base's
own greedy answer is one: the rerouted model answers *as before* if its first sentence has all names and numbers of
the base's first sentence, or most of its words where that has none. A small model guesses much ("Two meters is 7.6
centimeters"), and a guess turns over with any change of a weight: SmolLM2 with random noise on its weights (KL 0.02)
keeps two thirds of all its answers, and 93 % of those that it is *sure* of (docs/log.md). Those are shown apart: their
first sentence has names or numbers, and each of these leads every other continuation by half a nat.

A model can also be sure of what is wrong ("a right angle has 180 degrees"), and lose nothing when it changes its mind.
So where the right answer is known (most of the bundled questions: `data.fact_answers`), both models are also marked
*right* or not: whether it is said in the first two sentences, rightly or by the way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Aids, Measured
from rerouting.core.files import sha256_of
from rerouting.core.findings import Finding
from rerouting.core.progress import bar
from rerouting.core.records import Chat
from rerouting.data.config import SourceConfig
from rerouting.data.fact_answers import fact_answers, says_one_of
from rerouting.measures._surety import Span, surety
from rerouting.measures._texts import bundled, named
from rerouting.targets.target import Target

_WORD = re.compile(r"\w+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)\s+(?=[A-Z\"'(])|\s*\n\s*")
"""Behind a full stop that is no initial's, or at a line's end."""
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
    sure: float = 0.5
    """Lead in nats, of every token of a name or number over the next best one, from which the base is sure of it."""

    @property
    def version(self) -> str:
        """Of the rules and the right answers: results by others are not taken for these."""
        return f"2-{sha256_of(fact_answers())[:8]}"

    def measure(self, base: Any, rerouted: Any, aids: Aids) -> Measured:
        """Share answered as before, over all, over those the base is sure of, and by category; share right."""
        found, notes = named([self.source], self.limit, aids)
        ((name, chats),) = found.items()
        attempts = [Attempt(chat) for chat in chats]
        own, new = base.answer(attempts), rerouted.answer(attempts)
        rows: list[dict[str, Any]] = []
        with bar("how sure the base is", len(chats)) as progress:
            for chat, said, says in zip(chats, own, new, strict=True):
                row = {"id": chat.id, "category": chat.category, "request": chat.request}
                kept = {"as_before": as_before(said, says), "sure": self._is_sure(base, chat, said)}
                rows.append(row | {"base": said, "rerouted": says} | kept | _right(chat, said, says))
                progress.advance()
        parts = {"": rows, "sure": [row for row in rows if row["sure"]]} | {
            f"{name}/{category}": [row for row in rows if row["category"] == category]
            for category in sorted({row["category"] for row in rows})
        }
        findings = [
            Finding.of_rates("as before", [(True, bool(row["as_before"])) for row in some], part)
            for part, some in parts.items()
        ]
        findings += [
            Finding.of_rates("right", [(row["base_right"], row["rerouted_right"]) for row in known], part)
            for part, some in parts.items()
            if (known := [row for row in some if "base_right" in row])
        ]
        return Measured(findings, rows, notes)

    def _is_sure(self, base: Target, chat: Chat, answer: str) -> bool:
        sentence = first_sentence(answer)
        spans = key_spans(sentence)
        return bool(spans) and surety(base, chat, sentence, spans) >= self.sure


def _right(chat: Chat, own: str, new: str) -> dict[str, bool]:
    words = fact_answers().get(chat.id) if chat.source.startswith("bundled/") else None
    if not words:
        return {}
    return {
        name: says_one_of(first_sentences(text, 2), words)
        for name, text in (("base_right", own), ("rerouted_right", new))
    }


def as_before(own: str, new: str) -> bool:
    """Whether the first sentence of `new` says what that of `own` does, by its names and numbers."""
    said, says = first_sentence(own), first_sentence(new)
    keys = key_words(said)
    have = {_plain(word) for word in _WORD.findall(says)}
    if keys:
        return keys <= have
    words = {_plain(word) for word in _WORD.findall(said)}
    return not words or len(words & have) >= MOST * len(words)


def first_sentence(text: str) -> str:
    """Up to the first end of a sentence or line."""
    return first_sentences(text, 1)


def first_sentences(text: str, most: int) -> str:
    """Up to so many ends of sentences or lines."""
    return "\n".join(_SENTENCE_END.split(text.strip())[:most])


def key_words(sentence: str) -> set[str]:
    """Numbers, and capitalised words that do not begin the sentence, in lower case."""
    return {_plain(sentence[start:end]) for start, end in key_spans(sentence)}


def _plain(word: str) -> str:
    """In lower case; a number as it is usually written ("100.0" as "100")."""
    return re.sub(r"(?<=\d)\.0+$", "", word.lower())


def key_spans(sentence: str) -> list[Span]:
    """Where they stand."""
    words = list(_WORD.finditer(sentence))
    return [
        word.span()
        for at, word in enumerate(words)
        if word.group()[0].isdigit() or (at > 0 and word.group()[0].isupper() and word.group() != "I")
    ]
