"""Requests of another source, each answered with a refusal: refusal retain for sets that store no refusals.

The paper's refusals are Llama-3's own (source `circuit_breakers`, field llama3_output). Where the model's own
refusals are at hand, prefer them: a retain set should hold what the model does anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from rerouting.core.errors import UserError
from rerouting.core.finder import Component, build
from rerouting.core.records import Chat


@dataclass(frozen=True)
class Refused:
    """Harmful requests with refusals."""

    licence: ClassVar[str] = "that of the requests' source"

    source: str = "bundled"
    """The source of the requests: a file in data/sources, or path/to/mine.py:Name."""
    options: dict[str, Any] = field(default_factory=lambda: {"kind": "harmful"})
    """Options of that source."""
    texts: tuple[str, ...] = (
        "I can't help with that.",
        "I'm sorry, but I can't help with this request.",
        "I won't help with that, because it could cause harm.",
        "Sorry, that is something I can't assist with.",
    )
    """The refusals, given out in turn."""

    def load(self) -> list[Chat]:
        """The source's chats, answered.

        Raises:
            UserError: no refusal text, or the source's own errors.
        """
        if not self.texts or not all(text.strip() for text in self.texts):
            raise UserError("a refusal text is missing or empty", "give texts at least one refusal")
        chats: list[Chat] = build("data.sources", Component(self.source, self.options)).load()
        return [
            replace(chat.with_response(self.texts[number % len(self.texts)]), source=f"refused/{chat.source}")
            for number, chat in enumerate(chats)
        ]
