"""Plotly figures as plain dicts: text is escaped here, colours are names of CSS variables.

Plotly reads some HTML in labels and hover text, so no text of a file reaches it as it is.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from rerouting.report.figures import Value, ends, shown, spread
from rerouting.report.node import Node
from rerouting.report.parts import Cell, Plot, Table, number

COLOURS = {"base": "--base", "rerouted": "--rerouted"}
SERIES = tuple(f"--series-{at}" for at in range(8))
Trace = dict[str, Any]


def label(text: str, longest: int = 120) -> str:
    """Text as plotly may show it: markup escaped, long text cut."""
    return html.escape(text if len(text) <= longest else text[: longest - 1] + "…", quote=False)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a title."""
    return {"title": {"text": label(title)}, "automargin": True, **more}


def pair_by_category(
    title: str, pairs: Mapping[str, Mapping[str, Value]], unit: str, caption: str = ""
) -> Plot:
    """Shares of both models by category, as points with their intervals."""
    names = list(pairs)
    traces = []
    for model, offset in (("base", -0.14), ("rerouted", 0.14)):
        own = [(at, pairs[name].get(model)) for at, name in enumerate(names)]
        known = [(at, value) for at, value in own if value is not None and value.value is not None]
        values = [value for _, value in known]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": model,
                "x": [100 * (value.value or 0) for value in values],
                "y": [at + offset for at, _ in known],
                "error_x": errors(values, 100) | {"color": COLOURS[model]},
                "marker": {
                    "color": COLOURS[model],
                    "size": 9,
                    "symbol": "circle" if model == "rerouted" else "diamond",
                },
                "hoverinfo": "text",
                "hovertext": [f"{label(names[at])}<br>{model}: {in_words(value)}" for at, value in known],
            }
        )
    layout = {
        "height": 110 + 38 * len(names),
        "xaxis": axis(unit, range=[-2, 102]),
        "yaxis": {
            "tickvals": list(range(len(names))),
            "ticktext": [label(name, 26) for name in names],
            "range": [len(names) - 0.5, -0.5],
            "automargin": True,
            "zeroline": False,
        },
    }
    return Plot(title, traces, layout, caption)


def in_words(value: Value, unit: str = "share") -> str:
    """A figure with its interval and n, for hover text."""
    sign = " %" if unit == "share" else ""
    count = "" if value.n is None else f", n {value.n}"
    return f"{shown(value.value, unit)}{sign} {ends(value.interval, unit)}{count}"


def errors(values: Sequence[Value], scale: float = 1) -> dict[str, Any]:
    """Error bars; a value without an interval has none."""
    pairs = [(value.value or 0.0, value.interval or (value.value or 0.0,) * 2) for value in values]
    return {
        "type": "data",
        "symmetric": False,
        "array": [scale * max(0.0, interval[1] - centre) for centre, interval in pairs],
        "arrayminus": [scale * max(0.0, centre - interval[0]) for centre, interval in pairs],
        "thickness": 1.4,
        "width": 3,
    }


def curves(
    title: str,
    across: tuple[str, Sequence[float]],
    lines: Mapping[str, Sequence[float | None]],
    up: str,
    limit: int,
    caption: str = "",
) -> Plot:
    """Lines over one common axis, thinned to `limit` points, and the same figures as a table.

    Args:
        title: of the figure.
        across: the horizontal axis's title and values.
        lines: by name; None where a line has no value.
        up: the vertical axis's title.
        limit: points of a line.
        caption: below the figure.
    """
    name, places = across
    traces = []
    for at, (line, values) in enumerate(lines.items()):
        known = [place for place, value in zip(places, values, strict=True) if value is not None]
        kept = [known[one] for one in spread(len(known), limit)]
        by_place = dict(zip(places, values, strict=True))
        few = len(kept) < 40
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if few else "lines",
                "name": label(line),
                "x": kept,
                "y": [by_place[one] for one in kept],
                "line": {"color": COLOURS.get(line, SERIES[at % len(SERIES)]), "width": 2},
                "marker": {"size": 5},
                "hoverinfo": "text",
                "hovertext": [f"{label(line)}<br>{name} {one:g}: {by_place[one]:.5g}" for one in kept],
            }
        )
    layout = {"height": 300, "xaxis": axis(name), "yaxis": axis(up)}
    if len(places) > limit:
        caption = f"{caption} At most {limit} of {len(places)} points a line are drawn.".strip()
    table = _as_table(across, lines, limit)
    return Plot(title, traces, layout, caption, table, half=True)


def _as_table(
    across: tuple[str, Sequence[float]], lines: Mapping[str, Sequence[float | None]], limit: int
) -> Table:
    name, places = across
    rows = [
        [number(f"{places[at]:g}"), *(_figure(values[at]) for values in lines.values())]
        for at in spread(len(places), min(limit, 60))
    ]
    all_of_them = len(rows) == len(places)
    return Table(
        (name, *lines), rows, "The figures" if all_of_them else f"{len(rows)} of {len(places)} figures"
    )


def _figure(value: float | None) -> Cell:
    return number("" if value is None else f"{value:.5g}")


def by_layer(node: Node, layers: Sequence[float]) -> list[float | None]:
    """A list with one number a layer.

    Raises:
        DamagedError: it is no such list, or of another length.
    """
    values = node.numbers()
    if len(values) != len(layers):
        raise node.wrong(f"{len(layers)} numbers, one a layer")
    return values
