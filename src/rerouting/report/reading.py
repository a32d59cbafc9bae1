"""Run directories as the report reads them: every file may be missing or damaged, and is then named."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from rerouting.core.errors import UserError
from rerouting.core.rundir import is_run
from rerouting.report.node import AbsentError, DamagedError, Node

N = TypeVar("N")
T = TypeVar("T")
SIGNS = ("manifest.json", "metrics.jsonl", "generations.jsonl", "kept/summary.json", "analysis/analysis.json")
PARTS = ("attacks*/summary.json", "probes/*.json")


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        path: the folder.
        name: what it is called on the page, unlike every other run there.
        known: what was already read.
    """

    path: Path
    name: str
    known: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def json(self, file: str, writer: str) -> Node:
        """A JSON file.

        Args:
            file: relative to the run.
            writer: the command that writes it, for the message; "RUN" in it stands for the folder.

        Raises:
            DamagedError: it is missing, unreadable or no JSON.
        """
        return self._once(file, lambda: _json(self.path / file, file, self.command(writer)))

    def rows(self, file: str, writer: str) -> tuple[list[Node], list[str]]:
        """Rows of a JSON Lines file, and one line about every row that is damaged.

        Raises:
            DamagedError: the file is missing or unreadable.
        """
        rows, problems = self._once(file, lambda: _rows(self.path / file, file, self.command(writer)))
        return list(rows), list(problems)

    def config(self) -> Node:
        """The configuration.

        Raises:
            DamagedError: it is missing, unreadable or no YAML.
        """
        return self._once("config.yaml", lambda: _yaml(self.path / "config.yaml", "config.yaml"))

    def config_text(self) -> str:
        """The configuration as it stands in the file.

        Raises:
            DamagedError: it is missing or unreadable.
        """
        return _content(self.path / "config.yaml", "config.yaml", "rerouting train").decode(errors="replace")

    def _once(self, file: str, read: Callable[[], T]) -> T:
        """What was read of a file the first time, or why it could not be."""
        if file not in self.known:
            try:
                self.known[file] = read()
            except DamagedError as damage:
                self.known[file] = damage
        found = self.known[file]
        if isinstance(found, DamagedError):
            raise found
        return cast(T, found)

    def command(self, words: str) -> str:
        """A command with this run's folder for the word RUN."""
        return words.replace("RUN", shlex.quote(str(self.path)))

    def matrices(self) -> list[str]:
        """Names of the folders with attack results."""
        return sorted(
            entry.name for entry in self.path.glob("attacks*") if (entry / "summary.json").is_file()
        )


def open_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs to report on, each once.

    Raises:
        UserError: a path is no run directory.
    """
    unique = list(dict.fromkeys(paths))
    for path in unique:
        _check(path)
    return [Run(path, _name(path, unique)) for path in unique]


def sound(nodes: Iterable[N], read: Callable[[N], T]) -> tuple[list[T], list[str]]:
    """What could be read of each, and what was said of those that could not."""
    found, problems = [], []
    for node in nodes:
        try:
            found.append(read(node))
        except DamagedError as damage:
            problems.append(str(damage))
    return found, problems


def _check(path: Path) -> None:
    fix = "give the folder that `rerouting train` or `rerouting quickstart` wrote"
    if not path.exists():
        raise UserError(f"{path} does not exist", fix)
    if not path.is_dir():
        raise UserError(f"{path} is a file", fix)
    if (path / "matrix.json").exists():
        raise UserError(f"{path} holds attack results", f"give the run that they are of: {path.parent}")
    signs = any((path / sign).is_file() for sign in SIGNS) or any(any(path.glob(part)) for part in PARTS)
    if not (is_run(path) or signs):
        raise UserError(f"{path} is not a run directory", fix)


def _name(path: Path, paths: Sequence[Path]) -> str:
    """The folder's own name, or as much of the path as tells it from the others."""
    parts, others = path.absolute().parts, [one.absolute().parts for one in paths if one != path]
    for length in range(1, len(parts)):
        if all(other[-length:] != parts[-length:] for other in others):
            return "/".join(parts[-length:])
    return str(path)


def _content(path: Path, file: str, writer: str) -> bytes:
    if not path.exists():
        raise AbsentError(f"{file} is not there" + (f"; `{writer}` writes it" if writer else ""))
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{file} cannot be read: {error.strerror}") from error


def _json(path: Path, file: str, writer: str) -> Node:
    try:
        return Node(json.loads(_content(path, file, writer)), file)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{file} is damaged: {error}") from error


def _rows(path: Path, file: str, writer: str) -> tuple[list[Node], list[str]]:
    rows, problems = [], []
    for number, line in enumerate(_content(path, file, writer).split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{file} line {number}"
        try:
            row = Node(json.loads(line), place)
            row.mapping()
            rows.append(row)
        except (ValueError, RecursionError) as error:
            problems.append(f"{place} is damaged: {error}")
        except DamagedError as damage:
            problems.append(str(damage))
    return rows, problems


def _yaml(path: Path, file: str) -> Node:
    try:
        return Node(yaml.safe_load(_content(path, file, "rerouting train")), file)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        first = str(error).partition("\n")[0]
        raise DamagedError(f"{file} is damaged: {first}") from error
