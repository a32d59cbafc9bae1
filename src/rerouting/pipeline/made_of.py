"""What a component's results depend on, and whether options were given for one that was not asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rerouting.core.conversion import plain
from rerouting.core.errors import UserError
from rerouting.core.files import sha256_file
from rerouting.core.near import way_out
from rerouting.training.config import RunConfig

_TEXTS = (".yaml", ".yml", ".json", ".jsonl", ".csv", ".py", ".txt")


def check_named(given: Iterable[str], names: Iterable[str], field: str) -> None:
    """Refuse options for a component that was not asked for.

    Raises:
        UserError: names it, and those that were.
    """
    names = list(names)
    for name in given:
        if name not in names:
            raise UserError(
                f"{field} names {name!r}, which is not asked for", way_out(name, names, "asked for")
            )


def sources_of(name: str, options: dict[str, Any]) -> list[str]:
    """Hashes of files that a component depends on: its own, if it is the user's, and those that its options name.

    Of a folder, the texts in it: weights beside them are named by other means.
    """
    found = []
    for text in _texts([name, options]):
        path, colon, _ = text.rpartition(":")
        file = os.path.expanduser(path if colon and path.endswith(".py") else text)
        if os.path.isfile(file):  # False for what can be no path
            found.append(sha256_file(Path(file)))
        elif text.strip(".~/ ") and os.path.isdir(file):
            inside = sorted(one for one in Path(file).rglob("*") if one.suffix in _TEXTS and one.is_file())
            found += [sha256_file(one) for one in inside]
    return found


def own_files(config: RunConfig) -> dict[str, str]:
    """Hashes of the files that losses and evaluation attacks are, or read, by the name that the configuration has."""
    named = [plain(config.losses), [[one.attack, one.attack_options] for one in config.evaluation.sets]]
    found = {}
    for text in _texts(named):
        path = text.rpartition(":")[0] if ".py:" in text else text
        file = os.path.expanduser(path)
        if os.path.isfile(file):
            found[path] = sha256_file(Path(file))
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
