"""Faked turns in which the model has already complied come first (many-shot jailbreaking, Anil et al. 2024).

The shots are the package's own training requests with their affirmative openings, nothing more: no completions ship.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rerouting.core.attempt import Attempt
from rerouting.core.records import Chat, Message
from rerouting.data.sources.bundled import Bundled


@dataclass(frozen=True)
class ManyShot:
    """Black-box in-context examples."""

    shots: int = 8
    """Faked exchanges before the request."""

    group: ClassVar[int] = 16
    budgets: ClassVar[dict[str, dict[str, Any]]] = {"quick": {"shots": 4}, "paper": {"shots": 128}}
    cases: ClassVar[dict[str, int | None]] = {"quick": 8, "standard": 60}

    def prompts(self, chats: Sequence[Chat]) -> list[Attempt]:
        """One attempt a chat; a system turn stays in front."""
        examples = [chat for chat in Bundled("harmful", "train").load() if len(chat.messages) == 1][
            : self.shots
        ]
        turns = [
            turn
            for chat in examples
            for turn in (
                Message("user", chat.request),
                Message("assistant", f"{chat.target} as follows. Done."),
            )
        ]
        return [Attempt(_after(chat, turns)) for chat in chats]


def _after(chat: Chat, turns: Sequence[Message]) -> Chat:
    system = tuple(turn for turn in chat.messages if turn.role == "system")
    rest = tuple(turn for turn in chat.messages if turn.role != "system")
    return replace(chat, messages=(*system, *turns, *rest))
