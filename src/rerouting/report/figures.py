"""Figures of both models with their intervals, from wherever a run keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rerouting.core.findings import MODELS, Interval
from rerouting.report.node import Node
from rerouting.report.parts import Cell, number
from rerouting.report.reading import Run, sound

LABELS = ("answered", "refused", "broken")
NLL, LOST = "NLL of the base's answers", "base's answer lost"
"""Of the base's own answers: their likelihood, and what evaluation/compare.py calls `lost`, which has no base."""
EVALUATE, TRAIN = "rerouting evaluate RUN", "rerouting train"


@dataclass(frozen=True)
class Value:
    """One model's figure."""

    value: float | None
    interval: Interval | None
    n: int | None = None
    unscored: int = 0


@dataclass(frozen=True)
class Figure:
    """One figure of base and rerouted model.

    Attributes:
        source: what measured it ("sets", a measure, an attack matrix).
        name: what it is.
        part: of which texts.
        unit: "share" or anything else.
        base: the base model's.
        rerouted: the rerouted model's, or the pair's.
        difference: rerouted − base.
        p: McNemar's exact p value.
    """

    source: str
    name: str
    part: str
    unit: str
    base: Value
    rerouted: Value
    difference: Value | None = None
    p: float | None = None

    @property
    def models(self) -> tuple[tuple[str, Value], tuple[str, Value]]:
        """(name, figure) of both models."""
        return (MODELS[0], self.base), (MODELS[1], self.rerouted)

    @property
    def detail(self) -> bool:
        """Whether it is of one category or layer, as `rerouting evaluate --details` shows them."""
        return "/" in self.part or self.part.startswith("layer ")

    @property
    def where(self) -> str:
        """What measured it, of which texts."""
        return f"{self.source} · {self.part or 'all'}"

    @property
    def titled(self) -> str:
        """The name with its unit, unless that is the name."""
        unit = {"share": "%", "nats": "nats a token"}.get(self.unit, self.unit)
        return self.name if unit == self.name else f"{self.name} ({unit})"


def shown(value: float | None, unit: str = "share", signed: bool = False) -> str:
    """A figure as text: shares in per cent with one digit, others with three."""
    if value is None:
        return "–"
    scale, digits = (100, 1) if unit == "share" else (1, 3)
    return format(scale * value, f"{'+' if signed else ''}.{digits}f").replace("-", "−")


def ends(interval: Interval | None, unit: str = "share", signed: bool = False) -> str:
    """An interval as text."""
    return "" if interval is None else f"[{', '.join(shown(end, unit, signed) for end in interval)}]"


def cell(value: Value, unit: str = "share", look: str = "", signed: bool = False) -> Cell:
    """A figure with its interval below."""
    return number(shown(value.value, unit, signed), ends(value.interval, unit, signed), look)


def rate(node: Node) -> Value:
    """A rate as `core.stats.Rate` writes it."""
    low, high = node.maybe_number("low"), node.maybe_number("high")
    interval = None if low is None or high is None else (low, high)
    unscored = node.get("unscored")
    return Value(node.maybe_number("rate"), interval, node["n"].count(), unscored.count() if unscored else 0)


def set_figures(run: Run) -> tuple[list[Figure], list[str]]:
    """Labels and likelihood of the evaluation sets of summary.json, and what could not be read.

    Raises:
        DamagedError: there is no such file, or it holds no sets.
    """
    sets = run.json("summary.json", TRAIN)["sets"]
    found, problems = sound(sets.entries(), lambda entry: _of_set(*entry))
    return [figure for figures in found for figure in figures], problems


def _of_set(name: str, item: Node) -> list[Figure]:
    base, rerouted = (item[model] for model in MODELS)
    own, new = (
        Value(one.maybe_number("base_answer_nll"), None, item["n"].count()) for one in (base, rerouted)
    )
    figures = [*_shares(name, item), Figure("sets", NLL, name, "nats", own, new)]
    shown = item.get("where_base_shows")
    return [*figures, *_shares(f"{name}, where the base says it", shown)] if shown else figures


def _shares(part: str, item: Node) -> list[Figure]:
    """Of all prompts of a set, or of those where the base says what must not be said."""
    base, rerouted = (item[model] for model in MODELS)
    labels = [*LABELS, *(["shows"] if base.get("shows") else [])]
    figures = [
        Figure("sets", label, part, "share", rate(base[label]), rate(rerouted[label])) for label in labels
    ]
    if lost := rerouted.get("lost"):
        figures.append(Figure("sets", LOST, part, "share", Value(None, None), rate(lost)))
    return figures


def kept_figures(run: Run) -> tuple[list[Figure], list[str]]:
    """Findings of `rerouting evaluate`, and what could not be read.

    Raises:
        DamagedError: there is no kept/summary.json, or it holds no measures.
    """
    measures = run.json("kept/summary.json", EVALUATE)["measures"]
    figures: list[Figure] = []
    problems: list[str] = []
    for name, measure in measures.entries():
        lists, damaged = sound([measure], lambda one: one["findings"].items())
        for findings in lists:
            read, worse = sound(findings, lambda one, name=name: _of_finding(name, one))  # type: ignore[misc]
            figures += read
            problems += worse
        problems += damaged
    return figures, problems


def _of_finding(measure: str, node: Node) -> Figure:
    unscored = node.get("unscored")
    counts = node["n"].count(), unscored.count() if unscored else 0
    base, rerouted = (
        Value(node.maybe_number(model), node.maybe_interval(f"{model}_interval"), *counts) for model in MODELS
    )
    difference = Value(node.maybe_number("difference"), node.maybe_interval("interval"))
    given = None if difference.value is None else difference
    name, part, unit = (node[key].text() for key in ("name", "part", "unit"))
    return Figure(measure, name, part, unit, base, rerouted, given, node.maybe_number("p"))


def kept_notes(run: Run) -> list[str]:
    """What the measures say of themselves.

    Raises:
        DamagedError: as for `kept_figures`.
    """
    measures = run.json("kept/summary.json", EVALUATE)["measures"]
    found, problems = sound(measures.entries(), lambda entry: _notes(*entry))
    return [note for notes in found for note in notes] + problems


def _notes(name: str, measure: Node) -> list[str]:
    notes = measure.get("notes")
    return [f"{name}: {note.text()}" for note in notes.items()] if notes else []


def spread(count: int, limit: int) -> Sequence[int]:
    """At most `limit` places of `count`, evenly spread, first and last among them."""
    if count <= limit:
        return range(count)
    if limit < 2:
        return range(limit)
    return [round(at * (count - 1) / (limit - 1)) for at in range(limit)]
