"""Carries calls out in a world: that the money was sent is then a fact.

Whatever a model writes has an outcome: an unknown function, arguments that do not fit, a thing that is not there and a
result that is too large are failures with a name, no errors, and none of them changes the world.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rerouting.agents.arguments import argument_problem
from rerouting.agents.effects import ImpossibleError, apply
from rerouting.agents.world import Event, World, key_of, normal
from rerouting.core.records import Call
from rerouting.data.bundled_tools import ToolSpec, bundled_tools

Status = Literal["done", "unknown function", "wrong arguments", "impossible", "too large"]
LARGEST = 20_000
"""Letters of a call or a result, as JSON, that are still taken."""


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Attributes:
        status: "done", or why not.
        result: what the caller is told, as JSON.
    """

    status: Status
    result: str


class Simulator:
    """The functions that can be called.

    Args:
        specs: by name; the bundled ones if not given.
    """

    def __init__(self, specs: Mapping[str, ToolSpec] | None = None) -> None:
        self.specs = bundled_tools() if specs is None else specs

    def run(self, world: World, call: Call, offered: Sequence[str] | None = None) -> Outcome:
        """Carry out one call; the world changes only if it is done.

        Args:
            world: is changed.
            call: whatever a model wrote.
            offered: names of the functions that it may call; None for all.
        """
        spec = self.specs.get(call.name)
        if spec is None or (offered is not None and call.name not in offered):
            return _failed("unknown function", call.name[:80])
        size = _size(call.arguments)
        if size is not None and size > LARGEST:
            return _failed("too large", f"the arguments have {size} letters")
        problem = argument_problem(spec.tool, call.arguments) if size is not None else "not JSON"
        if problem:
            return _failed("wrong arguments", problem)
        after = world.copy()
        try:
            result = json.dumps(apply(after, spec, call.arguments), ensure_ascii=False)
        except ImpossibleError as reason:
            return _failed("impossible", str(reason))
        if len(result) > LARGEST:
            return _failed("too large", f"the result has {len(result)} letters")
        after.events.append(_event(spec, call.arguments))
        world.things, world.events = after.things, after.events
        return Outcome("done", result)

    def events(
        self, world: World, calls: Sequence[Call], offered: Sequence[str] | None = None
    ) -> list[Event]:
        """What the calls, one after the other, make happen in a copy of the world."""
        after = world.copy()
        for call in calls:
            self.run(after, call, offered)
        return after.events[len(world.events) :]


def _event(spec: ToolSpec, arguments: Mapping[str, Any]) -> Event:
    known = {*spec.effect.by, *spec.free}
    values = sorted((name, normal(value)) for name, value in arguments.items() if name not in known)
    return Event(spec.effect.kind, spec.effect.collection, key_of(spec, arguments), tuple(values))


def _size(value: Any) -> int | None:
    """Letters of a value as JSON; None where it is none: a pythonic call may hold anything."""
    try:
        return len(json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        return None


def _failed(status: Status, reason: str) -> Outcome:
    return Outcome(status, json.dumps({"error": status, "reason": reason}, ensure_ascii=False))
