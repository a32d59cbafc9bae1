"""Glaive function calling v2 (hub: glaiveai/glaive-function-calling-v2), the paper's retain set for agents.

Two columns of text: `system` names the functions, one JSON object behind the other; `chat` has the turns after "USER:",
"ASSISTANT:" and "FUNCTION RESPONSE:", calls as `<functioncall> {"name": …, "arguments": '{…}'}`. A few of the 113,000
published rows are broken (a call or a function that is no JSON, a call of a function that there is not): they are
passed over.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message, Role, Tool
from rerouting.data.bundled_tools import call_text
from rerouting.data.call_parsing import parse_calls
from rerouting.data.reading import Row, column, first, read_rows
from rerouting.data.tool_text import as_text

_SPEAKER = re.compile(r"(?:^|\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE):[ \t]*")
_ROLES: dict[str, Role] = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}


@dataclass(frozen=True)
class Glaive:
    """Conversations with function calls and their results."""

    licence: ClassVar[str] = "Apache-2.0"

    path: str = "glaiveai/glaive-function-calling-v2"
    """Hub name, or a local file with the columns system and chat."""
    split: str = "train"
    """Split of the hub data set."""
    end: Literal["last", "call"] = "last"
    """Where a chat ends: with its last answer, or with its first call; those without a call are then passed over."""
    style: Literal["template", "json", "tagged", "pythonic"] = "template"
    """How functions and calls are written: as the chat template does, or as text, for templates without functions."""
    limit: int | None = None
    """First conversations only, of those that are taken; null for all."""

    def load(self) -> list[Chat]:
        """One chat a conversation.

        Raises:
            UserError: unreadable data, a missing column, or no conversation that can be taken.
        """
        first((), self.limit)
        chats: list[Chat] = []
        for number, row in enumerate(read_rows(self.path, self.split)):
            if len(chats) == self.limit:
                break
            chat = self._chat(number, row)
            if chat is not None:
                chats.append(chat if self.style == "template" else as_text(chat, self.style))
        if not chats:
            raise UserError(
                f"{self.path}: no conversation can be taken",
                "give rows in Glaive v2's format, or end: last where there are no calls",
            )
        return chats

    def _chat(self, number: int, row: Row) -> Chat | None:
        """The conversation; None for one that is broken, or does not come to such an end."""
        tools, turns = _tools(column(row, "system")), _turns(column(row, "chat"))
        if tools is None or turns is None:
            return None
        named = {call.name for turn in turns for call in turn.calls}
        if not named <= {tool.name for tool in tools}:
            return None
        answers = [
            at
            for at, turn in enumerate(turns)
            if turn.role == "assistant" and (turn.calls or self.end == "last")
        ]
        if not answers:
            return None
        last = answers[-1] if self.end == "last" else answers[0]
        if last == 0 or turns[last - 1].role == "assistant" or turns[0].role != "user":
            return None
        answer = turns[last]
        meta = {"call_text": " ".join(map(call_text, answer.calls))} if answer.calls else {}
        return Chat(
            id=f"glaive-{number}",
            messages=turns[:last],
            response=answer.content,
            source="glaive",
            meta=meta,
            tools=tools,
            calls=answer.calls,
        )


def _tools(system: str) -> tuple[Tool, ...] | None:
    """The functions behind a system text; None if one is broken."""
    tools, place = [], system.find("{")
    while place >= 0:
        try:
            value, end = json.JSONDecoder(strict=False).raw_decode(system, place)
        except (ValueError, RecursionError):
            return None
        name, parameters = value.get("name"), value.get("parameters") or {}
        if not isinstance(name, str) or not isinstance(parameters, dict):
            return None
        tools.append(Tool(name, str(value.get("description", "")), _object_schema(parameters)))
        place = system.find("{", end)
    return tuple(tools)


def _object_schema(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {}} | parameters


def _turns(text: str) -> tuple[Message, ...] | None:
    """The turns of a conversation; None if one of its calls is broken."""
    parts = _SPEAKER.split(text)[1:]
    turns: list[Message] = []
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        said = said.replace("<|endoftext|>", "").strip()
        turn = Message(_ROLES[speaker], said)
        if turn.role == "assistant" and "<functioncall>" in said:
            before, _, rest = said.partition("<functioncall>")
            parsed = parse_calls("<functioncall>" + rest)
            if parsed.broken or not parsed.calls:
                return None
            turn = replace(turn, content=before.strip(), calls=tuple(found.call for found in parsed.calls))
        called = next((one.calls[-1].name for one in reversed(turns) if one.calls), "")
        turns.append(replace(turn, name=called) if turn.role == "tool" else turn)
    return tuple(turns)
