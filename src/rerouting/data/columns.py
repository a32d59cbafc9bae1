"""Which columns of a file are the request, the response and the like, by the names that published sets use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from rerouting.core.errors import UserError
from rerouting.core.near import way_out
from rerouting.data.reading import read_rows
from rerouting.data.sources.chats import Chats

KNOWN = {
    "messages": ("messages", "conversation", "conversations", "chat"),
    "prompt": (
        "prompt",
        "instruction",
        "question",
        "request",
        "query",
        "goal",
        "Goal",
        "behavior",
        "Behavior",
    ),
    "response": ("response", "output", "answer", "completion", "llama3_output"),
    "target": ("target", "Target"),
    "category": ("category", "Category", "type"),
    "form": ("form",),
    "system": ("system",),
    "id": ("id", "prompt_id", "conversation_id"),
}
"""Option of the source `chats`, and the column names that stand for it, the likeliest first."""


def guessed(names: Iterable[str]) -> dict[str, str | None]:
    """Options of the source `chats` for a file with these columns; `response` is None where there is none.

    Raises:
        UserError: no column that could be a request.
    """
    there = list(names)
    found: dict[str, str | None] = {
        option: next(name for name in known if name in there)
        for option, known in KNOWN.items()
        if any(name in there for name in known)
    }
    if "messages" not in found and "prompt" not in found:
        raise UserError(
            f"no column is known to be a request; there are: {', '.join(there) or '(none)'}",
            "name it: {prompt: COLUMN} or {messages: COLUMN}",
        )
    found.setdefault("response", None)
    if found.get("prompt") == "instruction" and "input" in there:
        found["context"] = "input"
    return found


def chats_options(path: str, given: dict[str, str | None]) -> dict[str, str | None]:
    """Options of the source `chats` for a file: those given, and guesses for the others.

    Raises:
        UserError: an option that `chats` does not have, an unreadable file, or no column of requests.
    """
    known = [entry.name for entry in fields(Chats) if entry.name != "path"]
    for name in given:
        if name not in known:
            raise UserError(f"the source chats has no option {name!r}", way_out(name, known))
    rows = read_rows(path, broken=lambda error: None)
    if not rows:
        raise UserError(f"{path} holds no usable rows", "give a file with at least one record")
    names = list(dict.fromkeys(name for row in rows[:100] for name in row.values))
    if {"prompt", "messages"} & set(given):
        guesses = {
            name: value for name, value in _others(names).items() if name not in ("prompt", "messages")
        }
    else:
        guesses = guessed(names)
    return {"path": path, **guesses, **given}


def _others(names: list[str]) -> dict[str, str | None]:
    """Guesses where the request's column is given."""
    return guessed([*names, "prompt"])
