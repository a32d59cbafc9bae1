"""The request inside templates that people wrote to talk models around (jailbreak prompts in the wild).

Source of the idea: Shen et al. 2023, arXiv 2308.03825, and HarmBench's HumanJailbreaks (Mazeika et al. 2024), which
draws a few of its templates for each behaviour. The bundled templates are our own, one for each style that is known; a
published file is given by `path`. Deviation: a template is asked through its place for the request, never appended to,
unless `append` says so; a contextual behaviour's text stands in front of the whole.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, ClassVar

from rerouting.core.attempt import Attempt, ask, behaviour_of
from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.reading import column, read_rows

PLACES = ("{request}", "[INSERT PROMPT HERE]", "[REPLACE]", "{prompt}", "{behavior}", "{goal}", "{query}")
_COLUMNS = ("template", "prompt", "text", "jailbreak", "content")


@dataclass(frozen=True)
class Template:
    """A named text with one place for the request, or several."""

    name: str
    text: str
    place: str

    def filled(self, request: str) -> str:
        """The text with the request in its place."""
        return self.text.replace(self.place, request)


@dataclass(frozen=True)
class HumanJailbreaks:
    """Black-box templates."""

    path: str | None = None
    """Templates: .jsonl, .json, .csv or .parquet with a column of them, .txt with one a line, or a .py file that
    holds nothing but a list of texts (read, never run); null for the bundled ones."""
    place: str | None = None
    """What stands for the request; null finds one of the usual ones in each template."""
    append: bool = False
    """Put the request behind a template that has no place for it, instead of refusing the file."""
    per_behaviour: int | None = 3
    """Templates for each behaviour, drawn by `seed`; null for all."""
    seed: int = 0
    """Of the draw."""

    group: ClassVar[int] = 32
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"per_behaviour": 2},
        "paper": {"per_behaviour": None},
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 8, "standard": 60, "paper": None}

    def prompts(self, chats: Sequence[Chat]) -> list[Attempt]:
        """One attempt a chat and template.

        Raises:
            UserError: an unreadable file, or a template without a place for the request.
        """
        templates = self.templates()
        attempts = []
        for chat in chats:
            drawn = templates
            if self.per_behaviour is not None and self.per_behaviour < len(templates):
                drawn = random.Random(f"{self.seed} {chat.id}").sample(templates, self.per_behaviour)
            attempts += [
                Attempt(ask(chat, one.filled(behaviour_of(chat))), trace={"template": one.name})
                for one in drawn
            ]
        return attempts

    def templates(self) -> list[Template]:
        """All templates of the file.

        Raises:
            UserError: see `prompts`.
        """
        return [self._template(name, text) for name, text in _texts(self.path)]

    def _template(self, name: str, text: str) -> Template:
        wanted = (self.place,) if self.place else PLACES
        place = next((one for one in wanted if one in text), None)
        if place is None and self.append:
            return Template(name, f"{text.rstrip()}\n\n{PLACES[0]}", PLACES[0])
        if place is None:
            raise UserError(
                f"{name}: the template has no place for the request ({' or '.join(wanted)})",
                "mark the place, name another one in `place`, or set append to put the request behind",
            )
        return Template(name, text, place)


def _texts(path: str | None) -> list[tuple[str, str]]:
    """Names and texts."""
    if path is None:
        with as_file(files("rerouting.data") / "bundled" / "jailbreak_templates.jsonl") as bundled:
            return [
                (column(row, "name"), column(row, "template", empty=False)) for row in read_rows(str(bundled))
            ]
    file = Path(path).expanduser()
    if file.suffix in (".py", ".txt"):
        texts = _listed(file) if file.suffix == ".py" else _read(file).splitlines()
        return [(f"{file.name}, {at + 1}", text) for at, text in enumerate(texts) if text.strip()]
    rows = read_rows(path)
    name = next((one for one in _COLUMNS if one in rows[0].values), None)
    if name is None:
        raise UserError(
            f"{path} has no column of templates, but: {', '.join(rows[0].values)}",
            f"name it one of {', '.join(_COLUMNS)}",
        )
    return [(row.where, column(row, name, empty=False)) for row in rows]


def _listed(file: Path) -> list[str]:
    """The first list of texts in a Python file, as HarmBench publishes its templates."""
    try:
        tree = ast.parse(_read(file))
    except SyntaxError as error:
        raise UserError(f"{file} is not Python: line {error.lineno}", "give a list of texts") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple):
            try:
                found = ast.literal_eval(node)
            except ValueError:
                continue
            if found and all(isinstance(text, str) for text in found):
                return list(found)
    raise UserError(f"{file} holds no list of texts", "give a file with a list of template strings")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}", "check the path; the file must be UTF-8") from error
