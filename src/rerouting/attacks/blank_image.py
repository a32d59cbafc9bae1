"""A grey picture in place of the request's own: a baseline for image attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rerouting.core.attempt import Attempt
from rerouting.core.records import Chat


@dataclass(frozen=True)
class BlankImage:
    """The request with a picture on which there is nothing."""

    picture: str = "blank:336x336"
    """What is shown: blank:WIDTHxHEIGHT, a file, drawn:test/1, written:TEXT."""

    needs_images: ClassVar[bool] = True

    def prompts(self, chats: Sequence[Chat]) -> list[Attempt]:
        """One attempt a chat."""
        return [Attempt(chat.with_images((self.picture,))) for chat in chats]
