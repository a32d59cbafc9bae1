"""Gorilla OpenFunctions (github: ShishirPatil/gorilla, openfunctions-v1): the form of the paper's harmful calls.

Two forms, both read: the training rows (`Instruction`; `Functions`, a list of texts, each a function as JSON or a
Python literal; `Output`, a list of which the first is taken), and the test rows (`question`; `function`, one or a
list; `model_answer`). Calls are Python: `flight.book(origin="Oslo", passengers=2)`. Rows whose function or call cannot
be read (`loc=Berkeley` without quotation marks), or that call a function that there is not, are passed over.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rerouting.core.errors import UserError
from rerouting.core.records import Call, Chat, Message, Tool
from rerouting.data.bundled_tools import call_text
from rerouting.data.call_parsing import parse_calls
from rerouting.data.reading import Row, first, read_rows
from rerouting.data.tool_schemas import tool_of
from rerouting.data.tool_text import as_text


@dataclass(frozen=True)
class Openfunctions:
    """Requests with functions on offer, each answered by its call or calls."""

    licence: ClassVar[str] = "Apache-2.0"

    path: str = "gorilla_openfunctions_v1_train.json"
    """Local file, or the hub name of a copy."""
    split: str = "train"
    """Split of a hub data set."""
    style: Literal["template", "json", "tagged", "pythonic"] = "template"
    """How functions and calls are written: as the chat template does, or as text, for templates without functions."""
    limit: int | None = None
    """First requests only, of those that are taken; null for all."""

    def load(self) -> list[Chat]:
        """One chat a row.

        Raises:
            UserError: unreadable data, or no row that can be taken.
        """
        first((), self.limit)
        chats: list[Chat] = []
        for number, row in enumerate(read_rows(self.path, self.split)):
            if len(chats) == self.limit:
                break
            chat = _chat(number, row)
            if chat is not None:
                chats.append(chat if self.style == "template" else as_text(chat, self.style))
        if not chats:
            raise UserError(
                f"{self.path}: no request can be taken",
                "give rows with Instruction, Functions, Output, or question, function, model_answer",
            )
        return chats


def _chat(number: int, row: Row) -> Chat | None:
    values = row.values
    request = values.get("Instruction", values.get("question"))
    answer = values.get("Output", values.get("model_answer"))
    if isinstance(answer, list):
        answer = answer[0] if answer else None
    tools = _tools(values.get("Functions", values.get("function")))
    if not (isinstance(request, str) and request.strip() and isinstance(answer, str) and tools):
        return None
    calls = _calls(answer, tools)
    if not calls:
        return None
    return Chat(
        id=f"openfunctions-{number}",
        messages=(Message("user", request.strip()),),
        source="openfunctions",
        meta={"call_text": " ".join(map(call_text, calls))},
        tools=tools,
        calls=calls,
    )


def _tools(given: Any) -> tuple[Tool, ...]:
    """The functions; none if one of them cannot be read."""
    found = [tool_of(_literal(one)) for one in (given if isinstance(given, list) else [given])]
    return tuple(tool for tool in found if tool is not None) if all(found) else ()


def _literal(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError:
        try:
            return ast.literal_eval(given)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None


def _calls(answer: str, tools: tuple[Tool, ...]) -> tuple[Call, ...]:
    """The calls; none if one of them is broken or of another function."""
    parsed = parse_calls(answer, tools)
    calls = tuple(found.call for found in parsed.calls)
    known = {tool.name for tool in tools}
    return () if parsed.broken or any(call.name not in known for call in calls) else calls
