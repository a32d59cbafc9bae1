"""Ordinary requests for function calls with a reason that makes them harmful, or harmless though it sounds alarming.

For training beside the source `tools`, whose harmful requests are few (data/tool_reasons.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from rerouting.core.records import Chat
from rerouting.data.bundled_tools import tool_requests
from rerouting.data.reading import first
from rerouting.data.tool_reasons import reasons, with_reasons
from rerouting.data.tool_text import as_text
from rerouting.data.tool_variants import variants


@dataclass(frozen=True)
class ToolReasons:
    """Each ordinary request with several reasons, one at a time, answered by its call."""

    licence: ClassVar[str] = "Apache-2.0"

    kind: Literal["harmful", "borderline"] = "harmful"
    """Harmful reasons, or their harmless twins."""
    split: Literal["train", "validation", "test"] = "train"
    """Split of the ordinary requests."""
    style: Literal["template", "json", "tagged", "pythonic"] = "template"
    """How functions and calls are written: as the chat template does, or as text, for templates without functions."""
    times: int = 3
    """Reasons for each request, each with other values and other functions on offer; at most as many as there are."""
    limit: int | None = None
    """First ordinary requests only; null for all."""

    def __post_init__(self) -> None:
        if not 1 <= self.times <= len(reasons("harmful")):
            raise ValueError(f"times {self.times} must be from 1 to {len(reasons('harmful'))}")

    def load(self) -> list[Chat]:
        """One chat a request and reason.

        Raises:
            UserError: an unknown split or style.
        """
        requests = first(tool_requests("ordinary", self.split), self.limit)
        found = with_reasons(variants(requests, 2)[len(requests) :], self.kind, self.times)
        chats = [one.chat() for one in found]
        return chats if self.style == "template" else [as_text(chat, self.style) for chat in chats]
