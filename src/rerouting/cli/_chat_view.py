"""How two answers and the breaker's trace look in a terminal."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rerouting.cli._console import printable
from rerouting.core.findings import MODELS
from rerouting.pipeline.conversation import Event, Piece, Trip
from rerouting.pipeline.trip import away

WIDE = 90
"""Columns from which both answers stand side by side."""
_PAUSE = 0.08  # seconds between two pictures
_BARS = "▁▂▃▄▅▆▇█"
_ENDINGS = {
    "end": "",
    "length": " … cut at the length asked for",
    "context": " … the model's context is full",
    "": " … stopped",
}


@dataclass
class Answers:
    """Both answers as far as they are written."""

    pieces: dict[str, list[Piece]] = field(default_factory=lambda: {model: [] for model in MODELS})
    rest: dict[str, str] = field(default_factory=lambda: dict.fromkeys(MODELS, ""))
    why: dict[str, str] = field(default_factory=lambda: dict.fromkeys(MODELS, ""))
    trip: int | None = None

    def add(self, event: Event) -> None:
        """Take in what happened."""
        if isinstance(event, Piece):
            self.pieces[event.model].append(event)
        elif isinstance(event, Trip):
            self.trip = event.number
        else:
            self.why[event.model], self.rest[event.model] = event.why, event.text

    def text(self, model: str, over: bool = True) -> Text:
        """An answer, its prefill dim, tokens far from the base's states coloured, the trip marked."""
        shown = Text()
        for piece in self.pieces[model]:
            if model == MODELS[1] and piece.number == self.trip:
                shown.append("↯", "bold red")
            shown.append(printable(piece.text), style_of(piece))
        shown.append(printable(self.rest[model]))
        if over:
            shown.append(self.ending(model), "dim italic")
        return shown

    def ending(self, model: str) -> str:
        """How an answer came to its end, in words where that is not plain to see."""
        written = [piece for piece in self.pieces[model] if not piece.given]
        if self.why[model] == "end" and not any(piece.text.strip() for piece in written):
            return "(ends here)"
        return _ENDINGS[self.why[model]]

    def trace(self) -> Text:
        """A bar for each token that the rerouted model wrote or was given, and the trip in words."""
        shown = Text.assemble(("trace ", "dim"))
        pieces = self.pieces[MODELS[1]]
        for at, piece in enumerate(pieces):
            if at and pieces[at - 1].given and not piece.given:
                shown.append("│", "dim")
            if piece.number == self.trip:
                shown.append("↯", "bold red")
            shown.append(_BARS[round(away(piece.cosine) * 7)], colour(piece.cosine))
        shown.append("\n")
        return shown.append_text(self._in_words(pieces))

    def _in_words(self, pieces: list[Piece]) -> Text:
        if self.trip is not None:
            at = pieces[self.trip - 1]
            where = f"“{printable(at.text)}”" if at.text else "the end" if at.ended else "half a character"
            within = " (in the prefill)" if at.given else ""
            return Text(
                f"tripped at token {self.trip} of {len(pieces)}{within}, {where}: {figures(at)}", "red"
            )
        known = [piece for piece in pieces if piece.cosine is not None]
        if not known:
            return Text("no token, no trace", "dim")
        lowest = min(known, key=lambda piece: piece.cosine or 0.0)
        return Text(f"no trip; lowest at token {lowest.number}: {figures(lowest)}", "green")


def figures(piece: Piece) -> str:
    """Cosine and divergence in words."""
    cosine = "unknown" if piece.cosine is None else f"{piece.cosine:.2f}"
    kl = "infinite" if piece.kl is None else f"{piece.kl:.2f} nats"
    return f"cosine {cosine}, KL {kl}".replace("\n", " ")


def colour(cosine: float | None) -> str:
    """Green near the base's states, yellow away from them, red far away."""
    far = away(cosine)
    return "dim" if cosine is None else "green" if far < 0.15 else "yellow" if far < 0.5 else "red"


def style_of(piece: Piece) -> str:
    """Of a token within an answer: only what is away from the base's states has a colour."""
    far = away(piece.cosine)
    style = "" if far < 0.15 else "yellow" if far < 0.5 else "red"
    return f"dim {style}".strip() if piece.given else style


class Columns:
    """Both answers beside each other, drawn anew while they grow; in `with`."""

    def __init__(self, console: Console) -> None:
        self.answers = Answers()
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._drawn = 0.0

    def __enter__(self) -> Columns:
        self._live.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._live.stop()
        self._console.print(self._table({model: self.answers.text(model) for model in MODELS}))
        self._console.print(self.answers.trace())

    def add(self, event: Event) -> None:
        """Take in what happened, and show it if the last picture is old enough."""
        self.answers.add(event)
        if time.monotonic() - self._drawn >= _PAUSE:
            self._drawn = time.monotonic()
            self._live.update(self._table({model: self._tail(model) for model in MODELS}), refresh=True)

    def _table(self, texts: dict[str, Text]) -> RenderableType:
        table = Table(box=box.MINIMAL, expand=True, pad_edge=False)
        for model in MODELS:
            table.add_column(model, ratio=1, overflow="fold")
        table.add_row(*texts.values())
        return table

    def _tail(self, model: str) -> Text:
        """As much of the end of an answer as the screen has lines for."""
        lines = self.answers.text(model, over=False).wrap(self._console, (self._console.width - 3) // 2)
        return Text("\n").join(lines[-max(1, self._console.height - 6) :])


class Below:
    """One answer below the other, each token printed once; in `with`."""

    def __init__(self, console: Console) -> None:
        self.answers = Answers()
        self._console = console
        self._model = ""

    def __enter__(self) -> Below:
        return self

    def __exit__(self, *raised: object) -> None:
        self._close()
        self._put(Text("\n"))
        self._put(self.answers.trace(), end="\n")

    def add(self, event: Event) -> None:
        """Print what is new."""
        self.answers.add(event)
        if isinstance(event, Trip):
            return
        if event.model != self._model:
            self._close()
            self._model = event.model
            self._put(Text(f"\n{event.model}\n", "bold"))
        self._put(Text(printable(event.text), style_of(event) if isinstance(event, Piece) else ""))

    def _close(self) -> None:
        if self._model:
            self._put(Text(self.answers.ending(self._model), "dim italic"), end="\n")

    def _put(self, text: Text, end: str = "") -> None:
        self._console.print(text, end=end, soft_wrap=True)
        self._console.file.flush()
