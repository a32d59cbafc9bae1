"""Capability against robustness: where every run's two models stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerouting.report.figures import Figure, Value, kept_figures, set_figures
from rerouting.report.node import DamagedError
from rerouting.report.parts import Group, Limits, Plot, Section
from rerouting.report.plots import COLOURS, SERIES, axis, errors, in_words, label
from rerouting.report.reading import Run
from rerouting.report.sections.attacks import read_matrix
from rerouting.report.sets import is_harmful

LEAD = "Up and to the right is better; a line leads from each run's base model to its rerouted one."
FIRST_ACROSS = ("mean over tasks", "score", "benign", "as before")
FIRST_UP = ("prefill",)
Axes = dict[str, list[tuple[Run, Figure]]]


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One plot of all runs."""
    across: Axes = {}
    up: Axes = {}
    for run in runs:
        for figure in _readable(run):
            for axes, title in ((across, _capability(run, figure)), (up, _robustness(run, figure))):
                if title:
                    axes.setdefault(title, []).append((run, figure))
    group = Group("")
    if across and up:
        group.parts.append(_plot(runs, _ordered(across, FIRST_ACROSS), _ordered(up, FIRST_UP)))
    if not across:
        group.absent("no figure of capability is there: no benign set, and nothing from `rerouting evaluate`")
    if not up:
        group.absent("no figure of robustness is there: no harmful set, and nothing from `rerouting attack`")
    return Section("tradeoff", "Capability against robustness", LEAD, [group])


def _readable(run: Run) -> list[Figure]:
    """What can be read of sets, measures and matrices; what cannot is named in the sections about them."""
    found: list[Figure] = []
    for read in (set_figures, kept_figures):
        try:
            found += read(run)[0]
        except DamagedError:
            continue
    for folder in run.matrices():
        try:
            matrix = read_matrix(run, folder)
        except DamagedError:
            continue
        whole = [row for row in matrix.rows if row.part == "all"]
        for base, rerouted in zip(whole[::2], whole[1::2], strict=True):
            name = f"{base.attack}, {matrix.budget} budget, judge {matrix.judge}"
            found.append(Figure("attacks", name, "", "share", base.asr, rerouted.asr))
    return found


def _capability(run: Run, figure: Figure) -> str:
    """The horizontal axis that a figure belongs to, "" if none."""
    unit = "" if figure.unit == "score" or figure.unit == "points" else " %"
    if figure.base.value is None or figure.rerouted.value is None or figure.detail:
        return ""
    if figure.source == "sets":
        wanted = figure.name == "answered" and not is_harmful(run, figure.part)
        return f"answered, set {figure.part} %" if wanted else ""
    if figure.source in ("lm_eval", "mt_bench", "facts") or figure.name == "complied":
        return f"{figure.source}: {figure.name} {figure.part}".strip() + unit
    return ""


def _robustness(run: Run, figure: Figure) -> str:
    """The vertical axis that a figure belongs to, "" if none."""
    if figure.base.value is None or figure.rerouted.value is None:
        return ""
    if figure.source == "attacks":
        return f"attack success rate of {figure.name} %"
    if figure.source == "sets" and figure.name == "answered" and is_harmful(run, figure.part):
        return f"answered, set {figure.part} %"
    return ""


def _ordered(axes: Axes, first: Sequence[str]) -> Axes:
    """Axes with those that most runs have, and then the telling ones, first."""

    def place(title: str) -> tuple[int, int]:
        telling = [at for at, word in enumerate(first) if word in title]
        return -len(axes[title]), telling[0] if telling else len(first)

    return {title: axes[title] for title in sorted(axes, key=place)}


def _plot(runs: Sequence[Run], across: Axes, up: Axes) -> Plot:
    """The first pair of axes, and what every other one would show."""
    data = {
        "x": {title: _values(runs, figures) for title, figures in across.items()},
        "y": {title: _values(runs, figures) for title, figures in up.items()},
    }
    titles = {"x": next(iter(across)), "y": next(iter(up))}
    layout = {
        "height": 430,
        "xaxis": axis(titles["x"]),
        "yaxis": axis(f"{titles['y']} (axis turned)", autorange="reversed"),
    }
    traces = []
    for at, run in enumerate(runs):
        trace = _trace(run, SERIES[at % len(SERIES)] if len(runs) > 1 else COLOURS["rerouted"])
        x, y = data["x"][titles["x"]][at], data["y"][titles["y"]][at]
        trace |= {"x": x["at"], "y": y["at"]}
        trace["error_x"] |= x["error"]
        trace["error_y"] |= y["error"]
        # a run may lack one of the two figures: it has no points then
        trace["hovertext"] = [f"{a}<br>{b}" for a, b in zip(x["text"], y["text"], strict=False)]
        traces.append(trace)
    caption = "Hollow: base; filled: rerouted. Bars are 95 % intervals."
    return Plot("", traces, layout, caption, choices=data)


def _trace(run: Run, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label(run.name),
        "line": {"color": colour, "width": 1.2, "dash": "dot"},
        "marker": {"color": colour, "size": 12, "symbol": ["circle-open", "circle"], "line": {"width": 2}},
        "error_x": {"color": colour},
        "error_y": {"color": colour},
        "hoverinfo": "text",
    }


def _values(runs: Sequence[Run], figures: Sequence[tuple[Run, Figure]]) -> list[dict[str, Any]]:
    """Of each run its two places on one axis; none where it has no such figure."""
    found = []
    for run in runs:
        own = next((figure for owner, figure in figures if owner is run), None)
        both = [] if own is None else [own.base, own.rerouted]
        scale = 100 if own is not None and own.unit == "share" else 1
        found.append(
            {
                "at": [scale * (value.value or 0.0) for value in both],
                "error": errors(both, scale),
                "text": [_hover(run, own, model, value) for model, value in own.models] if own else [],
            }
        )
    return found


def _hover(run: Run, figure: Figure, model: str, value: Value) -> str:
    name = f"{figure.name} {figure.part}".strip()
    return f"{label(run.name)}, {model}<br>{label(name)}: {in_words(value, figure.unit)}"
