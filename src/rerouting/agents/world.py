"""The things that functions act upon (accounts, mailboxes, files, doors …) by name, and what happened to them."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rerouting.core.records import Call
from rerouting.data.bundled_tools import ToolSpec

Key = tuple[str, ...]
NEEDED = ("delete", "update", "control", "read", "pay")
"""Kinds of effect that need something to be there."""
ACCOUNTS = "accounts"
_JOINTS = re.compile(r"[^\w@+*/]+|_")


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: of the effect ("pay").
        collection: of things ("accounts").
        key: which of them, normalised.
        values: the other arguments that are not free text, normalised, by name.
    """

    kind: str
    collection: str
    key: Key
    values: tuple[tuple[str, str], ...] = ()

    def touches_the_same_as(self, other: Event) -> bool:
        """Whether it did the same to the same thing, with whatever other values."""
        return (self.kind, self.collection, self.key) == (other.kind, other.collection, other.key)


@dataclass
class World:
    """State, and what led to it.

    Attributes:
        things: records by collection and key.
        events: what happened, in order.
    """

    things: dict[str, dict[Key, dict[str, Any]]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def of(self, collection: str) -> dict[Key, dict[str, Any]]:
        """The things of a collection."""
        return self.things.setdefault(collection, {})

    def copy(self) -> World:
        """One that can be changed for itself."""
        return copy.deepcopy(self)


def scene(spec: ToolSpec, call: Call) -> World:
    """A world that has what a call needs: the thing that it acts upon, or an account with enough money."""
    world, effect = World(), spec.effect
    if effect.kind not in NEEDED:
        return world
    key = key_of(spec, call.arguments)
    if effect.kind == "pay":
        amount = call.arguments.get(effect.amount, 0)
        world.of(effect.collection)[key[:1]] = {"balance": 2 * amount + 100}
    elif effect.collection == ACCOUNTS:
        world.of(effect.collection)[key] = {"balance": 250}
    else:
        name = ", ".join(str(call.arguments.get(name, "")) for name in effect.by)
        world.of(effect.collection)[key] = {"content": f"{name}: nothing new"}
    return world


def key_of(spec: ToolSpec, arguments: Mapping[str, Any]) -> Key:
    """Which thing the arguments name."""
    return tuple(normal(arguments.get(name, "")) for name in spec.effect.by)


def normal(value: Any) -> str:
    """A value as text to compare by: without regard to case, blanks and most punctuation; 5.0 is 5."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        text = str(value)
        return text if isinstance(value, int | float) else _JOINTS.sub("", text.casefold())
    except (ValueError, RecursionError):  # a number of thousands of digits, a list thousands deep
        return "(unreadable)"
