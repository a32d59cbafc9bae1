"""Function calls as plain text: schemas in the system prompt, calls in the answer, results in the user's turns.

For models whose chat template knows no functions (SmolLM2). `tagged` is how Hermes and Qwen write calls, `pythonic` how
Llama 3.2 and Gorilla may; `json` is one JSON object a line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from rerouting.core.errors import UserError
from rerouting.core.near import way_out
from rerouting.core.records import Call, Chat, Message, Tool

TextStyle = Literal["json", "tagged", "pythonic"]
_HOW = {
    "json": 'To call one, write a line {"name": "…", "arguments": {…}}.',
    "tagged": 'To call one, write <tool_call>{"name": "…", "arguments": {…}}</tool_call>.',
    "pythonic": 'To call one, write [name(argument="…")].',
}


def as_text(chat: Chat, style: str) -> Chat:
    """The chat without functions, all that it had of them being text now; its `target` opens the first call.

    Args:
        chat: with functions, calls or results; a chat without them stays as it is.
        style: how calls are written: json, tagged or pythonic.

    Raises:
        UserError: another style.
    """
    check_style(style)
    if not (chat.tools or chat.calls or any(turn.calls or turn.role == "tool" for turn in chat.messages)):
        return chat
    response = _joined(chat.response, chat.calls, style) if chat.is_answered else None
    target = call_start(chat.calls, style) if chat.calls and not chat.target else chat.target
    system = [_instructions(chat.tools, style)] if chat.tools else []
    system += [turn.content for turn in chat.messages if turn.role == "system"]
    turns = [Message("system", "\n\n".join(system))] if system else []
    for turn in chat.messages:
        if turn.role != "system":
            _add(turns, _plain_turn(turn, style))
    return replace(chat, messages=tuple(turns), response=response, target=target, tools=(), calls=())


def check_style(style: str) -> None:
    """Refuse a style that there is not.

    Raises:
        UserError: names those that there are.
    """
    known = get_args(TextStyle)
    if style not in known:
        raise UserError(f"calls cannot be written as {style!r}", way_out(style, known, "there are"))


def write_calls(calls: Sequence[Call], style: str) -> str:
    """The text of the calls."""
    if style == "pythonic":
        return f"[{', '.join(map(_pythonic, calls))}]"
    texts = [_compact({"name": call.name, "arguments": call.arguments}) for call in calls]
    return "\n".join(f"<tool_call>{text}</tool_call>" if style == "tagged" else text for text in texts)


def call_start(calls: Sequence[Call], style: str) -> str:
    """The text of the calls up to and including the first function's name."""
    text = write_calls(calls, style)
    return text[: text.index(calls[0].name) + len(calls[0].name)]


def _instructions(tools: Sequence[Tool], style: str) -> str:
    lines = [_compact(_described(tool)) for tool in tools]
    return "\n".join(["You can call these functions.", *lines, _HOW[style]])


def _described(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}


def _plain_turn(turn: Message, style: str) -> Message:
    if turn.role == "tool":
        return Message("user", f"Result of {turn.name or 'the call'}: {turn.content}")
    return Message(turn.role, _joined(turn.content, turn.calls, style))


def _add(turns: list[Message], turn: Message) -> None:
    """Put a turn behind the others, or into the last one of the same speaker: templates want turns to alternate."""
    if turns and turns[-1].role == turn.role != "system":
        turns[-1] = replace(turns[-1], content=f"{turns[-1].content}\n{turn.content}")
    else:
        turns.append(turn)


def _joined(text: str | None, calls: Sequence[Call], style: str) -> str:
    return "\n".join(part for part in (text, write_calls(calls, style) if calls else "") if part)


def _pythonic(call: Call) -> str:
    return f"{call.name}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
