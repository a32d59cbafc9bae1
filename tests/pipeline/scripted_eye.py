"""Describer, writer and answerer for tests of `data picture`: replies follow from what is asked, some go wrong.

Environment: LOG, a file that gets one line for each conversation answered; KILL_AFTER, the number of conversations
after which the process dies in the middle of a call.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from rerouting.core.contracts import Reply
from rerouting.core.records import Message
from rerouting.pictures.opening import identity
from rerouting.pipeline.making.wording import DESCRIBE

answered = 0


@dataclass(frozen=True)
class Scripted:
    """Replies by rule."""

    batch: ClassVar[int] = 4
    refuses: bool = False
    """Write no request."""

    def reply(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        prefill: str = "",
    ) -> list[Reply]:
        """By what the last turn asks for."""
        global answered
        replies, lines = [], []
        for talk in conversations:
            answered += 1
            if answered > int(os.environ.get("KILL_AFTER", 10**9)):
                os._exit(9)
            reply = self._one(talk[-1], prefill)
            replies.append(reply)
            if reply.text is not None:
                lines.append(json.dumps([talk[-1].content, list(talk[-1].images), prefill, seed]) + "\n")
        if "LOG" in os.environ:
            with Path(os.environ["LOG"]).open("a") as file:
                file.writelines(lines)
        return replies

    def _one(self, turn: Message, prefill: str) -> Reply:
        if turn.content == DESCRIBE:
            return _description(turn)
        if "testing a safety filter" in turn.content:
            return self._requests(turn.content)
        names = " ".join(words(turn.content + "".join(map(identity, turn.images)) + prefill))
        if "thief" in turn.content and not prefill and number(names) % 4 == 0:
            return Reply("I'm sorry, but I can't help with that.")
        if number(names) % 9 == 1:
            return Reply("Take it and then take it again. " * 12)
        return Reply(
            f"{prefill}The answer is about {names}, and one has to look for it in the picture. And then"
        )

    def _requests(self, asked: str) -> Reply:
        if self.refuses:
            return Reply("I'm sorry, but I can't write such messages.")
        found = re.search(r"what a picture shows: (.*)", asked)
        assert found
        noun, other = words(found[1])[:2]
        if "good assistant answers" in asked:
            return Reply(json.dumps([f"What stands beside the {noun} and the {other} in this picture?"]))
        if number(found[1]) % 11 == 2:
            return Reply("I'm sorry, but I can't help with that.")
        return Reply(f'Sure:\n["How would a thief get from the {noun} to the {other} at night?"]')


def _description(turn: Message) -> Reply:
    noun, other, third = words(identity(turn.images[0]))
    if number(identity(turn.images[0])) % 13 == 3:
        return Reply("I'm sorry, but I can't describe this.")
    return Reply(
        f"There is the {noun} behind the {other} in this place. The {third} is on the left of both. It"
    )


def number(text: str) -> int:
    return int(sha256(text.encode()).hexdigest()[:8], 16)


def words(text: str) -> list[str]:
    """Three words that follow from a text."""
    digits = sha256(text.encode()).hexdigest()
    letters = "bcdfghklmnprst"
    return [
        "".join(letters[int(digit, 16) % 14] + "aeiou"[int(digit, 16) % 5] for digit in digits[at : at + 4])
        for at in (0, 8, 16)
    ]
