"""A value from a file that knows its place, so that damage is named where it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class DamagedError(Exception):
    """A file says something else than expected; its message says what and where."""


class AbsentError(DamagedError):
    """A file is not there; its message names the command that writes it."""


@dataclass(frozen=True)
class Node:
    """Part of a file's content.

    Attributes:
        value: as JSON or YAML gave it.
        place: file and keys, for messages.
    """

    value: Any
    place: str

    def __getitem__(self, key: str | int) -> Node:
        """A member that must be there."""
        if isinstance(key, int):
            items = self.items()
            if key < len(items):
                return items[key]
        elif key in self.mapping():
            return Node(self.value[key], f"{self.place}: {key}")
        raise DamagedError(f"{self.place} has no {key!r}")

    def get(self, key: str) -> Node | None:
        """A member that may be missing or null."""
        found = self.mapping().get(key)
        return None if found is None else Node(found, f"{self.place}: {key}")

    def mapping(self) -> dict[str, Any]:
        """The value as a mapping."""
        if not isinstance(self.value, dict):
            raise self.wrong("a mapping")
        return self.value

    def entries(self) -> Iterator[tuple[str, Node]]:
        """Names and members of a mapping."""
        for name in self.mapping():
            yield str(name), Node(self.value[name], f"{self.place}: {name}")

    def items(self) -> list[Node]:
        """Members of a list."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return [Node(one, f"{self.place}[{at}]") for at, one in enumerate(self.value)]

    def text(self) -> str:
        """The value as text."""
        if not isinstance(self.value, str):
            raise self.wrong("text")
        return self.value

    def number(self) -> float:
        """The value as a finite number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.wrong("a number")
        try:
            number = float(self.value)
        except OverflowError:
            raise self.wrong("a number") from None
        if not math.isfinite(number):
            raise self.wrong("a finite number")
        return number

    def count(self) -> int:
        """The value as a whole number, 0 or more."""
        number = self.number()
        if number < 0 or not number.is_integer():
            raise self.wrong("a whole number, 0 or more")
        return int(number)

    def flag(self) -> bool:
        """The value as true or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def numbers(self) -> list[float | None]:
        """The value as a list of numbers, of which some may be null."""
        return [None if one.value is None else one.number() for one in self.items()]

    def interval(self) -> tuple[float, float]:
        """The value as two numbers."""
        ends = [one.number() for one in self.items()]
        if len(ends) != 2:
            raise self.wrong("[low, high]")
        return ends[0], ends[1]

    def plainly(self) -> str:
        """Any value as text, for a table of facts."""
        if isinstance(self.value, str):
            return self.value
        if self.value is None:
            return "none"
        return json.dumps(self.value, ensure_ascii=False, default=str)

    def maybe_number(self, key: str) -> float | None:
        """A member number that may be missing or null."""
        found = self.get(key)
        return None if found is None else found.number()

    def maybe_text(self, key: str) -> str:
        """A member text; "" where it is missing or null."""
        found = self.get(key)
        return "" if found is None else found.text()

    def maybe_interval(self, key: str) -> tuple[float, float] | None:
        """A member interval that may be missing or null."""
        found = self.get(key)
        return None if found is None else found.interval()

    def wrong(self, expected: str) -> DamagedError:
        """The error for a value that is not what was expected."""
        try:
            shown = json.dumps(self.value, ensure_ascii=False, default=str)
        except (ValueError, RecursionError):
            shown = type(self.value).__name__
        shown = shown if len(shown) <= 60 else shown[:59] + "…"
        return DamagedError(f"{self.place}: expected {expected}, found {shown}")
