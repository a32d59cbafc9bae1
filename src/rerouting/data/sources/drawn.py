"""Drawn pictures with questions about them, or beside the bundled prompts: a multimodal data set without a file.

Ours. Pictures are those of `rerouting.pictures.scenes`, in fixed splits: nothing of one split is in another.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.sources.bundled import Bundled
from rerouting.pictures.questions import any_question
from rerouting.pictures.scenes import scene


@dataclass(frozen=True)
class Drawn:
    """Questions with their answers, or requests without (sample the responses on-policy)."""

    licence: ClassVar[str] = "Apache-2.0"

    kind: Literal["questions", "harmful", "benign", "borderline"] = "questions"
    """Questions about the picture, or the bundled prompts of a kind, each after a picture that has no part in it."""
    split: Literal["train", "validation", "test"] = "train"
    """Fixed split, of pictures and of prompts."""
    limit: int | None = None
    """Questions (1,000 where it is null), or first prompts only."""

    def load(self) -> list[Chat]:
        """The chats, always the same.

        Raises:
            UserError: an unknown kind or split.
        """
        if self.split not in ("train", "validation", "test"):
            raise UserError(f"drawn pictures have no split {self.split!r}", "use train, validation or test")
        if self.kind == "questions":
            return [self._question(number) for number in range(1000 if self.limit is None else self.limit)]
        chats = Bundled(self.kind, self.split, self.limit).load()
        return [chat.with_images((self._beside(chat.id),)) for chat in chats]

    def _question(self, number: int) -> Chat:
        picture = f"drawn:{self.split}/{number}"
        chance = random.Random(f"{self.split}/{number}/question")
        fact, asked, answer = any_question(scene(self.split, number).facts, chance)
        turn = Message("user", asked, images=(picture,))
        source = f"drawn/questions/{self.split}"
        return Chat(f"drawn-{self.split}-{number}", (turn,), response=answer, category=fact, source=source)

    def _beside(self, name: str) -> str:
        """A picture that does not depend on what else is loaded."""
        return f"drawn:{self.split}/{random.Random(f'{self.split}/{name}').randrange(100_000)}"
