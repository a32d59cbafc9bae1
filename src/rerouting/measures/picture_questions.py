"""Questions about pictures: are they answered as well as before?

Ours, for vision-language models. The questions have answers of one word (`rerouting.pictures.questions`); an answer is
right if its first word is that one. With a source of its own, the response of each chat is the answer wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Aids, Measured
from rerouting.core.errors import UserError
from rerouting.core.findings import Finding
from rerouting.core.prompts import reader_of
from rerouting.data.config import SourceConfig
from rerouting.data.loading import chats_of, spread
from rerouting.pictures.questions import is_right


def _held_out() -> SourceConfig:
    return SourceConfig("drawn", {"kind": "questions", "split": "test", "limit": 600})


@dataclass(frozen=True)
class PictureQuestions:
    """Both models answer questions about held-out pictures, greedily."""

    source: SourceConfig = field(default_factory=_held_out)
    """Chats with a picture and the answer that is wanted, of one word."""
    limit: int | None = None
    """Questions taken, spread evenly; null for all."""

    def measure(self, base: Any, rerouted: Any, aids: Aids) -> Measured:
        """Share of right answers, over all and by category.

        Raises:
            UserError: the model takes no pictures, or a chat has no picture or no answer.
        """
        for target in (base, rerouted):
            reader_of(target.tokenizer)
        chats = spread(chats_of(self.source), self.limit)
        bad = next((chat.id for chat in chats if not (chat.images and chat.response)), None)
        if bad is not None:
            raise UserError(
                f"{bad} has no picture, or no answer", "give a source of questions about pictures"
            )
        attempts = [Attempt(chat) for chat in chats]
        own, new = base.answer(attempts), rerouted.answer(attempts)
        rows = [
            {
                "id": chat.id,
                "category": chat.category,
                "request": chat.request,
                "images": list(chat.images),
                "wanted": chat.response,
                "base": said,
                "rerouted": says,
                "right": [is_right(said, chat.response or ""), is_right(says, chat.response or "")],
            }
            for chat, said, says in zip(chats, own, new, strict=True)
        ]
        parts = {"": rows} | {
            name: [row for row in rows if row["category"] == name]
            for name in sorted({chat.category for chat in chats if chat.category})
        }
        findings = [
            Finding.of_rates("right about pictures", [tuple(row["right"]) for row in some], part)
            for part, some in parts.items()
        ]
        return Measured(findings, rows)
