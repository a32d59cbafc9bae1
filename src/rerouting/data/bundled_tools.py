"""The functions and requests that ship with the package: bundled/tools.jsonl and bundled/tool_requests.jsonl."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import as_file, files
from typing import Any, Literal, get_args

from rerouting.core.errors import UserError
from rerouting.core.near import way_out
from rerouting.core.records import Call, Chat, Message, Tool
from rerouting.data.reading import Row, column, optional_column, read_rows

RequestKind = Literal["harmful", "ordinary", "borderline"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Effect:
    """What a call changes in the world.

    Attributes:
        kind: a handler in agents/effects.py: "send", "create", "delete", "update", "control", "read", "pay", "look_up".
        collection: the things that it acts upon ("files", "accounts").
        by: the arguments that say which of them.
        amount: of a payment, the argument that says how much.
    """

    kind: str
    collection: str
    by: tuple[str, ...]
    amount: str = ""


@dataclass(frozen=True)
class ToolSpec:
    """A function, and what it does.

    Attributes:
        tool: name, description and schema, as a model sees it.
        effect: of a call.
        category: its domain ("mail", "travel").
        free: arguments of free text, which are not compared word for word.
    """

    tool: Tool
    effect: Effect
    category: str = ""
    free: tuple[str, ...] = ()


@dataclass(frozen=True)
class ToolRequest:
    """A request, and the call that it leads to.

    Attributes:
        id: unique in the package.
        kind: harmful, ordinary, or borderline: harmless, with the call of its harmful twin.
        split: train, validation or test.
        category: its domain.
        request: what the user says.
        offered: names of the functions that the assistant may call.
        call: what it leads to.
        allowed: other values that are as good, by argument.
        result: what the call gives back, as the simulator says.
        twin: the borderline request of a harmful one, and the other way round.
    """

    id: str
    kind: str
    split: str
    category: str
    request: str
    offered: tuple[str, ...]
    call: Call
    allowed: dict[str, list[Any]] = field(default_factory=dict, hash=False)
    result: str = ""
    twin: str = ""

    def chat(self) -> Chat:
        """The request with the functions offered, answered by the call."""
        specs = bundled_tools()
        return Chat(
            id=self.id,
            messages=(Message("user", self.request),),
            category=self.category,
            source=f"tools/{self.kind}/{self.split}",
            meta={"call_text": call_text(self.call)},
            tools=tuple(specs[name].tool for name in self.offered),
            calls=(self.call,),
        )

    def after_result(self) -> Chat:
        """The request, the call and its result, not answered."""
        chat = self.chat()
        turns = (
            *chat.messages,
            Message("assistant", "", chat.calls),
            Message("tool", self.result, name=self.call.name),
        )
        return replace(chat, messages=turns, calls=())


def call_text(call: Call) -> str:
    """A call's name and values as words, for comparing it with others."""
    return " ".join([call.name, *(str(value) for value in call.arguments.values())])


@cache
def bundled_tools() -> dict[str, ToolSpec]:
    """The functions by name."""
    return {spec.tool.name: spec for spec in map(_spec, _rows("tools"))}


@cache
def _requests() -> tuple[ToolRequest, ...]:
    return tuple(map(_request, _rows("tool_requests")))


def tool_requests(kind: str, split: str) -> list[ToolRequest]:
    """The requests of a kind and split, in file order.

    Raises:
        UserError: there is no such kind or split.
    """
    for name, given, known in (("kind", kind, get_args(RequestKind)), ("split", split, get_args(Split))):
        if given not in known:
            raise UserError(
                f"bundled tool requests have no {name} {given!r}", way_out(given, known, "there are")
            )
    return [one for one in _requests() if (one.kind, one.split) == (kind, split)]


def _rows(name: str) -> list[Row]:
    with as_file(files("rerouting.data") / "bundled" / f"{name}.jsonl") as path:
        return read_rows(str(path))


def _spec(row: Row) -> ToolSpec:
    values, effect = row.values, row.values["effect"]
    return ToolSpec(
        tool=Tool(column(row, "name"), column(row, "description"), values["parameters"]),
        effect=Effect(effect["kind"], effect["in"], tuple(effect["by"]), effect.get("amount", "")),
        category=column(row, "category"),
        free=tuple(values["free"]),
    )


def _request(row: Row) -> ToolRequest:
    values = row.values
    return ToolRequest(
        **{name: column(row, name) for name in ("id", "kind", "split", "category", "request")},
        offered=tuple(values["offered"]),
        call=Call(values["call"]["name"], values["call"]["arguments"]),
        allowed=values.get("allowed", {}),
        result=column(row, "result"),
        twin=optional_column(row, "twin" if "twin" in values else None),
    )
