"""The requests for function calls that ship with the package (data/bundled/README.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from rerouting.core.records import Chat, Message
from rerouting.data.bundled_tools import tool_requests
from rerouting.data.reading import first
from rerouting.data.tool_text import as_text
from rerouting.data.tool_variants import among, variants


@dataclass(frozen=True)
class Tools:
    """Requests with functions on offer, each answered by the call that it leads to."""

    licence: ClassVar[str] = "Apache-2.0"

    kind: Literal["harmful", "borderline", "ordinary"] = "harmful"
    """Harmful requests, their harmless twins, or ordinary ones."""
    split: Literal["train", "validation", "test"] = "train"
    """Fixed split; nothing of one split is in another."""
    style: Literal["template", "json", "tagged", "pythonic"] = "template"
    """How functions and calls are written: as the chat template does, or as text, for templates without functions."""
    after_result: bool = False
    """Put the call and its result before the response, which is then to be sampled (on_policy)."""
    times: int = 1
    """How often each request comes: first as it is, then with other values and other functions on offer."""
    others: int | None = None
    """Functions on offer beside the request's own; null for one to three. Fewer make chats shorter, steps cheaper."""
    system: str = ""
    """System prompt; empty for none."""
    limit: int | None = None
    """First requests only, before `times`; null for all."""

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times {self.times} must be at least 1")
        if self.others is not None and not 0 <= self.others <= 12:
            raise ValueError(f"others {self.others} must be from 0 to 12")
        if self.after_result and self.times > 1:
            raise ValueError("after_result needs times 1: there are no results of calls with other values")

    def load(self) -> list[Chat]:
        """One chat a request; with on_policy the calls are replaced by what the model writes, and say how it may begin.

        Raises:
            UserError: an unknown kind, split or style.
        """
        requests = variants(first(tool_requests(self.kind, self.split), self.limit), self.times)
        if self.others is not None:
            requests = among(requests, self.others)
        chats = [one.after_result() if self.after_result else one.chat() for one in requests]
        if self.system:
            start = Message("system", self.system)
            chats = [replace(chat, messages=(start, *chat.messages)) for chat in chats]
        return chats if self.style == "template" else [as_text(chat, self.style) for chat in chats]
