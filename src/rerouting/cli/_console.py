"""Where tables are printed."""

from __future__ import annotations

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
