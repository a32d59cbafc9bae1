"""What calls do to the world: one handler for each kind of effect, none for a single function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rerouting.agents.world import Key, World, key_of
from rerouting.data.bundled_tools import ToolSpec

Arguments = dict[str, Any]
Handler = Callable[[World, ToolSpec, Key, Arguments], dict[str, Any]]


class ImpossibleError(Exception):
    """The world does not allow it; the text says why."""


def _send(world: World, spec: ToolSpec, key: Key, arguments: Arguments) -> dict[str, Any]:
    texts = [str(arguments[name]) for name in spec.free if name in arguments]
    if spec.free and not any(text.strip() for text in texts):
        raise ImpossibleError("there is nothing to send")
    sent = world.of(spec.effect.collection).setdefault(key, {"sent": []})
    sent.setdefault("sent", []).append(dict(arguments))
    return {"sent": len(sent["sent"])}


def _create(world: World, spec: ToolSpec, key: Key, arguments: Arguments) -> dict[str, Any]:
    things = world.of(spec.effect.collection)
    if key in things:
        raise ImpossibleError("it is there already")
    things[key] = dict(arguments)
    return {"created": _name(spec, arguments)}


def _delete(world: World, spec: ToolSpec, key: Key, arguments: Arguments) -> dict[str, Any]:
    _there(world, spec, key)
    del world.of(spec.effect.collection)[key]
    return {"deleted": _name(spec, arguments)}


def _update(world: World, spec: ToolSpec, key: Key, arguments: Arguments) -> dict[str, Any]:
    changes = {name: value for name, value in arguments.items() if name not in spec.effect.by}
    _there(world, spec, key).update(changes)
    return {"changed": _name(spec, arguments)} | changes


def _read(world: World, spec: ToolSpec, key: Key, arguments: Arguments) -> dict[str, Any]:
    return dict(_there(world, spec, key))


def _pay(world: World, spec: ToolSpec, key: Key, arguments: Arguments) -> dict[str, Any]:
    accounts, amount = world.of(spec.effect.collection), arguments.get(spec.effect.amount, 0)
    giver, taker = key[:1], key[1:]
    if giver not in accounts:
        raise ImpossibleError("there is no such account")
    if giver == taker or amount <= 0:
        raise ImpossibleError("there is nothing to pay")
    if amount > accounts[giver].get("balance", 0):
        raise ImpossibleError("there is not enough money")
    accounts[giver]["balance"] -= amount
    taken = accounts.setdefault(taker, {})
    taken["balance"] = taken.get("balance", 0) + amount
    return {"paid": amount, "balance": accounts[giver]["balance"]}


def _look_up(world: World, spec: ToolSpec, key: Key, arguments: Arguments) -> dict[str, Any]:
    return {"found": _name(spec, arguments)}


HANDLERS: dict[str, Handler] = {
    "send": _send,
    "create": _create,
    "delete": _delete,
    "update": _update,
    "control": _update,
    "read": _read,
    "pay": _pay,
    "look_up": _look_up,
}


def apply(world: World, spec: ToolSpec, arguments: Arguments) -> dict[str, Any]:
    """Carry out a call whose arguments fit the function's schema; returns its result.

    Raises:
        ImpossibleError: the world is as it was.
    """
    key = key_of(spec, arguments)
    if not all(key):
        raise ImpossibleError("it is not said what it is about")
    handler = HANDLERS.get(spec.effect.kind)
    if handler is None:
        raise ImpossibleError(f"nothing is known to {spec.effect.kind!r}")
    return handler(world, spec, key, arguments)


def _there(world: World, spec: ToolSpec, key: Key) -> dict[str, Any]:
    things = world.of(spec.effect.collection)
    if key not in things:
        raise ImpossibleError(f"there is no such thing among {spec.effect.collection}")
    return things[key]


def _name(spec: ToolSpec, arguments: Arguments) -> str:
    return ", ".join(str(arguments.get(name, "")) for name in spec.effect.by)
