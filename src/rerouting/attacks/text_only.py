"""The request without its picture: a baseline for image attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rerouting.core.attempt import Attempt
from rerouting.core.records import Chat


@dataclass(frozen=True)
class TextOnly:
    """What the request is worth without a picture."""

    needs_images: ClassVar[bool] = True

    def prompts(self, chats: Sequence[Chat]) -> list[Attempt]:
        """One attempt a chat."""
        return [Attempt(chat.with_images(())) for chat in chats]
