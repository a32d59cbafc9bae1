"""Progress on stderr: a bar in a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
EVERY_SECONDS = 10.0
SHORT_SECONDS = 2.0


class Progress(Protocol):
    """What `bar` gives."""

    def advance(self, steps: int = 1) -> None:
        """So many more are done."""

    def note(self, text: str) -> None:
        """Show a few words beside the count, in place of the last ones."""


@contextmanager
def bar(description: str, total: int | None = None, done: int = 0) -> Iterator[Progress]:
    """Show progress while the block runs.

    Args:
        description: what is being done, in a word or two.
        total: how many there are to do; None if unknown.
        done: how many were done before, by a process that this one goes on from.
    """
    if sys.stderr.isatty():
        with _rich(description, total, done) as progress:
            yield progress
        return
    lines = _Lines(description, total, done)
    yield lines
    lines.end()


def track(iterable: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """The items, one by one, with progress; `total` is the iterable's length where it has one."""
    length = len(iterable) if total is None and isinstance(iterable, Sized) else total
    with bar(description, length) as progress:
        for item in iterable:
            yield item
            progress.advance()


@contextmanager
def _rich(description: str, total: int | None, done: int) -> Iterator[Progress]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[words]}", markup=False),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as shown:
        yield _Bar(shown, shown.add_task(description, total=total, completed=done, words=""))


class _Bar:
    def __init__(self, shown: Any, task: Any) -> None:
        self._shown, self._task = shown, task

    def advance(self, steps: int = 1) -> None:
        self._shown.advance(self._task, steps)

    def note(self, text: str) -> None:
        self._shown.update(self._task, words=text)


class _Lines:
    def __init__(self, description: str, total: int | None, done: int) -> None:
        self._description, self._total, self._done = description, total, done
        self._words, self._began, self._told = "", time.monotonic(), time.monotonic()

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        if time.monotonic() - self._told >= EVERY_SECONDS:
            self._tell()

    def note(self, text: str) -> None:
        self._words = text
        if time.monotonic() - self._told >= EVERY_SECONDS:
            self._tell()

    def end(self) -> None:
        if time.monotonic() - self._began >= SHORT_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        count = f"{self._done}" if self._total is None else f"{self._done}/{self._total}"
        words = f"  {self._words}" if self._words else ""
        line = f"{self._description}: {count}, {self._told - self._began:.0f} s{words}\n"
        sys.stderr.write(line)
        sys.stderr.flush()
