"""Which trials a search makes: every combination, a random draw, or successive halving of one.

Sources: Bergstra and Bengio 2012 (random search); Jamieson and Talwalkar 2016 (successive halving). Halving here cuts
training short and trains survivors anew, because schedules are functions of the whole run; it misleads where the best
settings are slow to begin (docs/log.md: a heavy retain weight stays at the stationary point for most of a run).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from rerouting.core.errors import UserError

Values = dict[str, Any]
RANGE = {"low", "high", "log", "integer"}


def grid(space: Mapping[str, Any]) -> list[Values]:
    """Every combination, the last key's values turning fastest.

    Raises:
        UserError: nothing to vary, or a range, which a grid cannot go through.
    """
    _check(space)
    for key, given in space.items():
        if isinstance(given, Mapping):
            raise UserError(f"space.{key} is a range", "list its values, or set method random")
    found = [dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*space.values())]
    return list({repr(values): values for values in found}.values())


def drawn(space: Mapping[str, Any], count: int, seed: int = 0) -> list[Values]:
    """`count` different combinations at random; fewer where there are no more.

    Raises:
        UserError: nothing to vary, or a range that is none.
    """
    _check(space)
    if count < 1:
        raise UserError(f"trials is {count}", "give 1 or more")
    draw = random.Random(f"{seed}/select")
    found: dict[str, Values] = {}
    for _ in range(50 * count):
        values = {key: _one(key, given, draw) for key, given in space.items()}
        found.setdefault(repr(values), values)
        if len(found) == count:
            break
    return list(found.values())


def survivors(ranked: Sequence[Any], keep: float) -> list[Any]:
    """The best share of what is ranked best first, at least one."""
    return list(ranked[: max(1, math.ceil(keep * len(ranked)))])


def check_rungs(rungs: Sequence[float], keep: float) -> None:
    """Refuse rungs that do not ascend to 1.

    Raises:
        UserError: says what is wrong.
    """
    ascending = all(low < high for low, high in itertools.pairwise(rungs))
    if not rungs or not ascending or rungs[0] <= 0 or rungs[-1] != 1 or not 0 < keep < 1:
        raise UserError(
            f"rungs are {list(rungs)}, keep is {keep}",
            "rungs ascend from above 0 to 1, as [0.5, 1.0]; keep lies between 0 and 1",
        )


def _check(space: Mapping[str, Any]) -> None:
    if not space:
        raise UserError(
            "space is empty", "name what is to be varied: {training.learning_rate: [5.0e-4, 1.0e-3]}"
        )
    for key, given in space.items():
        if isinstance(given, Mapping):
            _check_range(key, given)
        elif not isinstance(given, list) or not given:
            raise UserError(f"space.{key} is {given!r}", "give a list of values, or {low: …, high: …}")


def _check_range(key: str, given: Mapping[str, Any]) -> None:
    low, high = given.get("low"), given.get("high")
    numbers = all(
        isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end)
        for end in (low, high)
    )
    if not {"low", "high"} <= set(given) <= RANGE or not numbers or not low < high:  # type: ignore[operator]
        raise UserError(
            f"space.{key} is {dict(given)}",
            "a range is {low: 1, high: 9}, and maybe log: true, integer: true",
        )
    if given.get("log") and low <= 0:  # type: ignore[operator]
        raise UserError(f"space.{key} is logarithmic from {low}", "a logarithmic range lies above 0")


def _one(key: str, given: Any, draw: random.Random) -> Any:
    if not isinstance(given, Mapping):
        return draw.choice(given)
    low, high, log = given["low"], given["high"], given.get("log")
    value = math.exp(draw.uniform(math.log(low), math.log(high))) if log else draw.uniform(low, high)
    return round(value) if given.get("integer") else min(high, max(low, float(f"{value:.4g}")))
