"""Where and how the verbs print, and where they put what goes beside a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(width: int = 120) -> Console:
    """The terminal at its own width; files and pipes at a given one."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=width)


def printable(text: str) -> str:
    """The text without characters that would steer the terminal."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


def say(line: str) -> None:
    """A line that is no result: on stderr."""
    print(line, file=sys.stderr)


def beside(run: Path, ending: str) -> Path:
    """The folder RUN-ENDING next to a run's, also where the run is given as `.`."""
    place = run if run.name not in ("", "..") else run.resolve()
    return place.with_name(f"{place.name}-{ending}")
