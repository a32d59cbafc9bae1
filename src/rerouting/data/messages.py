"""A stored list of turns to a chat with its final response; function calls as transformers writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

from rerouting.core.errors import UserError
from rerouting.core.records import Call, Message, Role, Tool

_ROLES: dict[str, Role] = {role: role for role in get_args(Role)} | {"human": "user", "gpt": "assistant"}


def parse_messages(value: Any, where: str) -> tuple[Message, ...]:
    """Turns from `[{"role", "content"}, …]`, from ShareGPT's `[{"from", "value"}, …]`, or from either as JSON
    text.

    Pictures are taken over from `images`, as they are written.

    Raises:
        UserError: not such a list, an unknown role, or content that is not text; the message begins with
            `where`.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where}: the messages are text but not JSON ({error.msg})", "mend the row"
            ) from error
    if not isinstance(value, Sequence) or not value:
        raise UserError(
            f"{where}: the messages are no list of turns", 'write [{"role": "user", "content": "…"}, …]'
        )
    return tuple(_parse_turn(turn, f"{where}, turn {number}") for number, turn in enumerate(value, 1))


def _parse_turn(turn: Any, where: str) -> Message:
    if not isinstance(turn, dict):
        raise UserError(f"{where}: not an object", 'write {"role": "user", "content": "…"}')
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if role not in _ROLES:
        raise UserError(f"{where}: role {role!r} is unknown", f"use one of {', '.join(_ROLES)}")
    given = turn.get("tool_calls") or []
    if not isinstance(given, Sequence):
        raise UserError(f"{where}: the calls are no list", "mend or remove the row")
    calls = tuple(_parse_call(call, where) for call in given)
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise UserError(f"{where}: the content is not text", "mend or remove the row")
    if calls and _ROLES[role] != "assistant":
        raise UserError(f"{where}: a turn of the {role} has calls", "only the assistant calls functions")
    name = turn.get("name") if role == "tool" else ""
    images = turn.get("images") or ()
    if not isinstance(images, list | tuple) or not all(isinstance(one, str) for one in images):
        raise UserError(
            f"{where}: the images are no list of references", "write paths, or drawn:test/17 and the like"
        )
    return Message(_ROLES[role], content, calls, name if isinstance(name, str) else "", tuple(images))


def with_pictures(turns: Sequence[Message], place: Callable[[str], str]) -> tuple[Message, ...]:
    """The turns with every picture's reference as `place` makes it; those without are left as they are."""
    return tuple(
        replace(turn, images=tuple(map(place, turn.images))) if turn.images else turn for turn in turns
    )


def _parse_call(value: Any, where: str) -> Call:
    inner = value.get("function", value) if isinstance(value, dict) else {}
    name, arguments = (
        (inner.get("name"), inner.get("arguments", {})) if isinstance(inner, dict) else (None, {})
    )
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except json.JSONDecodeError:
        arguments = None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise UserError(
            f"{where}: a call without a name, or whose arguments are no object",
            'write {"function": {"name": "…", "arguments": {…}}}',
        )
    return Call(name, arguments)


def parse_tools(value: Any, where: str) -> tuple[Tool, ...]:
    """Functions from `[{"name", "description", "parameters"}, …]`, each bare or as `{"function": …}`, or JSON text.

    Raises:
        UserError: not such a list; the message begins with `where`.
    """
    try:
        value = json.loads(value) if isinstance(value, str) else value or []
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: the functions are no JSON ({error.msg})", "mend the row") from error
    if not isinstance(value, Sequence):
        raise UserError(f"{where}: the functions are no list", "write a list of schemas")
    found = []
    for one in value:
        inner = one.get("function", one) if isinstance(one, dict) else {}
        inner = inner if isinstance(inner, dict) else {}
        name, parameters = inner.get("name"), inner.get("parameters") or {}
        if not isinstance(name, str) or not isinstance(parameters, dict):
            raise UserError(
                f"{where}: a function without a name, or whose parameters are no schema",
                'write {"name": "…", "description": "…", "parameters": {…}}',
            )
        schema = {"type": "object", "properties": {}} | parameters
        found.append(Tool(name, str(inner.get("description") or ""), schema))
    return tuple(found)


def split_response(turns: tuple[Message, ...], where: str) -> tuple[tuple[Message, ...], str | None]:
    """The turns up to the last request, and the assistant turn after it (None where there is none).

    Raises:
        UserError: no request is left, or the turn before the response is neither the user's nor a function's result.
    """
    response = turns[-1].content if turns[-1].role == "assistant" else None
    before = turns if response is None else turns[:-1]
    if not before or before[-1].role not in ("user", "tool"):
        raise UserError(f"{where}: no user turn before the response", "mend or remove the row")
    return before, response
