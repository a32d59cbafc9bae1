"""The record that every stage reads and writes: one chat, with the functions that it may call, if any.

The fields of function calls are left out of what is written and hashed where they are empty, so that a plain chat is
what it always was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
UNSET = {"left_out_when_empty": True}


@dataclass(frozen=True)
class Tool:
    """A function that the assistant may call.

    Attributes:
        name: as it is called.
        description: what it does, for the model.
        parameters: JSON Schema of its arguments, of type "object".
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(
        default_factory=lambda: {"type": "object", "properties": {}}, hash=False
    )


@dataclass(frozen=True)
class Call:
    """One call of a function, with its arguments by name (JSON values)."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: who speaks; "tool" is the result of a call.
        content: the text, "" for an assistant's turn of calls alone.
        calls: of an assistant's turn.
        name: of a result, the function that gave it.
        images: pictures that stand before the text, by reference (`rerouting.pictures.opening`).
    """

    role: Role
    content: str
    calls: tuple[Call, ...] = field(default=(), metadata=UNSET)
    name: str = field(default="", metadata=UNSET)
    images: tuple[str, ...] = field(default=(), metadata=UNSET)


def shown(message: Message) -> dict[str, Any]:
    """A turn as it is written beside an answer: role, text, and pictures if there are any."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    return turn | ({"images": list(message.images)} if message.images else {})


@dataclass(frozen=True)
class Chat:
    """A conversation that waits for, or already has, its final assistant response.

    Attributes:
        id: unique within its source, stable between runs.
        messages: the turns before the response; the last is the user's (it may be empty: request dropping), or the
            result of a call.
        response: the assistant's text to train on or to score; None until it is sampled.
        target: affirmative opening of a harmful response ("Sure, here is …"); None for benign chats.
        category: topic label of the source, "" if it has none.
        form: how it is asked ("command", "question", …), "" if unknown.
        source: data set and split it came from, for the record of a run.
        meta: anything else the source says, kept as it is.
        tools: functions that the assistant may call.
        calls: those of the response, after its text; such a chat is answered without a text, too.
    """

    id: str
    messages: tuple[Message, ...]
    response: str | None = None
    target: str | None = None
    category: str = ""
    form: str = ""
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict, hash=False)
    tools: tuple[Tool, ...] = field(default=(), metadata=UNSET)
    calls: tuple[Call, ...] = field(default=(), metadata=UNSET)

    @property
    def request(self) -> str:
        """The last user turn's text."""
        return self.messages[self._asked].content

    @property
    def images(self) -> tuple[str, ...]:
        """The pictures of all turns, in order."""
        return tuple(image for turn in self.messages for image in turn.images)

    @property
    def is_answered(self) -> bool:
        """Whether it has a response, a text or a call."""
        return self.response is not None or bool(self.calls)

    def with_response(self, response: str) -> Chat:
        """The same chat, answered with a text."""
        return replace(self, response=response, calls=())

    def with_images(self, images: tuple[str, ...]) -> Chat:
        """The same chat with these pictures before its last user turn's text, and no others."""
        bare = tuple(replace(turn, images=()) for turn in self.messages)
        turns = (replace(turn, images=images) if at == self._asked else turn for at, turn in enumerate(bare))
        return replace(self, messages=tuple(turns))

    def with_request(self, request: str) -> Chat:
        """The same chat with its last user turn's text replaced."""
        before, asked, after = self.messages[: self._asked], self.messages[self._asked], self._after
        return replace(self, messages=(*before, replace(asked, content=request), *after))

    @property
    def _asked(self) -> int:
        """Where the last user turn stands: last of all, unless calls and their results follow."""
        places = [at for at, turn in enumerate(self.messages) if turn.role == "user"]
        return places[-1] if places else len(self.messages) - 1

    @property
    def _after(self) -> tuple[Message, ...]:
        return self.messages[self._asked + 1 :]
