"""What a section is made of; the templates know how each part looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from rerouting.report.node import AbsentError

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """How much of what can be long goes onto the page.

    Attributes:
        examples: bytes of the examples, over all runs.
        heat_maps: bytes of the token heat maps, over all runs.
        points: of one curve.
        rows: of one table.
    """

    examples: int = 1_800_000
    heat_maps: int = 600_000
    points: int = 300
    rows: int = 400

    def halved(self) -> Limits:
        """Half of everything."""
        return Limits(self.examples // 2, self.heat_maps // 2, self.points // 2, self.rows // 2)


@dataclass(frozen=True)
class Cell:
    """A table's cell: its text, something smaller below, and how it looks ("number", "muted", "base", "rerouted")."""

    text: str
    small: str = ""
    look: str = ""
    bar: tuple[tuple[str, float], ...] = ()
    """A stacked bar below: (label, share 0 to 1)."""


@dataclass(frozen=True)
class Table:
    """Rows under columns; `folded` names a table that is closed until asked for, `title` one that is open."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: str = ""
    title: str = ""
    swatches: bool = False
    """Whether the columns of labels show the colours that the bars have."""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Plot:
    """A plotly figure, whose colours are names of CSS variables, with its caption and its figures as a table."""

    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    caption: str = ""
    table: Table | None = None
    half: bool = False
    """Whether two stand side by side where there is room."""
    choices: dict[str, Any] = field(default_factory=dict)
    """Other data by axis, see `sections/tradeoff.py`."""
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True)
class Note:
    """A line of text with commands in backquotes; `look` is "absent" for what is not there, "damaged" for what is."""

    text: str
    look: str = ""
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    rows: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Code:
    """Text in a fixed font, closed until asked for if `folded` names it."""

    text: str
    folded: str = ""
    title: str = ""
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Token:
    """A token of a heat map with its values."""

    text: str
    cosine: float | None
    kl: float | None
    prompt: bool
    trip: bool


@dataclass(frozen=True)
class HeatMap:
    """One example, token by token."""

    title: str
    tokens: Sequence[Token]
    harmful: bool
    kind: ClassVar[str] = "heat"


@dataclass(frozen=True)
class Picture:
    """A picture with its caption; `data` is a data URI, "" for one that is not there."""

    caption: str
    data: str


@dataclass(frozen=True)
class Answer:
    """What one model wrote, and what was said of it."""

    model: str
    text: str
    label: str
    reason: str
    sent: str = ""
    prefill: str = ""
    attempt: str = ""
    verdicts: Sequence[tuple[str, str, str]] = ()
    """(judge, word, reason)."""
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Example:
    """A request with the models' answers."""

    set_name: str
    id: str
    category: str
    request: str
    answers: Sequence[Answer]
    harmful: bool


@dataclass(frozen=True)
class Examples:
    """Examples that can be filtered."""

    run: str
    examples: Sequence[Example]
    kind: ClassVar[str] = "examples"


Part = Table | Plot | Note | Facts | Code | HeatMap | Examples


@dataclass
class Group:
    """The parts about one run; `name` is "" where a section is about all."""

    name: str
    parts: list[Part] = field(default_factory=list)

    def absent(self, line: str) -> None:
        """Say in its place what is not there."""
        self.parts.append(Note(line, "absent"))

    def damaged(self, *lines: object) -> None:
        """Say in its place what cannot be read; of a file that is not there, that it is not. Each once."""
        for line in lines:
            note = Note(str(line), "absent" if isinstance(line, AbsentError) else "damaged")
            if note not in self.parts:
                self.parts.append(note)

    def first(self, rows: Sequence[T], limit: int, what: str) -> Sequence[T]:
        """At most `limit` of the rows; says so where that is not all of them."""
        if len(rows) > limit:
            self.parts.append(Note(f"The first {limit} of {len(rows)} {what} are shown."))
        return rows[:limit]

    def facts(self, *rows: tuple[str, str]) -> None:
        """Add to the facts right before, or begin new ones."""
        before = self.parts[-1] if self.parts else None
        if isinstance(before, Facts):
            self.parts[-1] = Facts([*before.rows, *rows])
        elif rows:
            self.parts.append(Facts(rows))


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it."""

    id: str
    title: str
    lead: str
    groups: Sequence[Group]


def number(text: str, small: str = "", look: str = "") -> Cell:
    """A cell that holds a figure."""
    return Cell(text, small, f"number {look}".strip())


def without_empty(columns: Sequence[str], rows: Sequence[Sequence[Cell]], folded: str = "") -> Table:
    """A table without the columns in which no row has anything."""
    kept = [at for at in range(len(columns)) if any(row[at].text for row in rows)]
    return Table([columns[at] for at in kept], [[row[at] for at in kept] for row in rows], folded)


def row_of(*texts: str) -> list[Cell]:
    """A row of plain cells."""
    return [Cell(text) for text in texts]
