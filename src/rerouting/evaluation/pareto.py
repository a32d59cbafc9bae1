"""The trials of a selection that no other trial beats in both of two figures, and their picture."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rerouting.core.files import atomic_write

INK, GREY, LINE, ACCENT, GOOD = "#1f2933", "#7b8794", "#cbd2d9", "#d64545", "#2d6cdf"
MOST_LISTED = 12
"""Trials on the front whose values are listed beside the picture."""
Row = dict[str, Any]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other is as small as in both figures and smaller in one, by the first figure."""
    found: list[int] = []
    for at in sorted(range(len(points)), key=lambda place: points[place]):
        if not found or points[at][1] < points[found[-1]][1]:
            found.append(at)
    return found


def plot(
    rows: Sequence[Row],
    along: Sequence[int],
    best: Row | None,
    objective: str,
    against: str,
    out: Path,
) -> None:
    """Write pareto.png and pareto.svg.

    Args:
        rows: trials with `metrics`, `intervals`, `feasible`, `values`; both metrics were measured.
        along: places of those on the front.
        best: the one that was chosen.
        objective: as in the configuration; what is maximised is shown as it is.
        against: metric of the other axis.
        out: where the files go.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    word, _, metric = objective.strip().partition(" ")
    better = "more" if word.startswith("maxim") else "less"
    figure, axes = pyplot.subplots(figsize=(9.6, 5.4), layout="constrained")
    where = [(row["metrics"][against], row["metrics"][metric.strip()]) for row in rows]
    _front(axes, [where[at] for at in along])
    _trials(axes, rows, where, against, metric.strip())
    if best is not None and best in rows:
        across, up = where[list(rows).index(best)]
        axes.scatter(
            [across], [up], s=210, facecolors="none", edgecolors=ACCENT, lw=1.8, zorder=5, label="chosen"
        )
    _numbers(axes, rows, along, where, up=better == "more")
    axes.set_xlabel(f"{against}  (less is better)", color=INK)
    axes.set_ylabel(f"{metric.strip()}  ({better} is better)", color=INK)
    axes.set_title(
        f"{len(rows)} trials on validation data; bars: 95 % intervals", loc="left", color=INK, fontsize=11
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e7eb", lw=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.08)
    axes.legend(
        frameon=False,
        fontsize=8,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0,
        labelcolor=INK,
    )
    for kind in ("png", "svg"):
        data = io.BytesIO()
        figure.savefig(data, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
        atomic_write(out / f"pareto.{kind}", data.getvalue())
    pyplot.close(figure)


def _front(axes: Any, points: Sequence[tuple[float, float]]) -> None:
    """A staircase: what lies between two points of the front, no trial has reached."""
    points = sorted(points)
    across, up = zip(*points, strict=True)
    axes.plot(across, up, color=INK, lw=1.1, zorder=1, drawstyle="steps-post", label="Pareto front")


def _trials(
    axes: Any, rows: Sequence[Row], where: Sequence[tuple[float, float]], against: str, metric: str
) -> None:
    for feasible, colour, face, words in (
        (True, GOOD, GOOD, "keeps the constraints"),
        (False, GREY, "white", "does not"),
    ):
        own = [at for at, row in enumerate(rows) if row["feasible"] is feasible]
        for at in own:
            for name, kind in ((against, "xerr"), (metric, "yerr")):
                bars = _bars(where[at][name == metric], rows[at].get("intervals", {}).get(name))
                if bars:
                    axes.errorbar(
                        *where[at], **{kind: bars}, ecolor=colour, elinewidth=0.8, alpha=0.45, zorder=2
                    )
        if own:
            across, up = zip(*(where[at] for at in own), strict=True)
            axes.scatter(across, up, s=44, c=face, edgecolors=colour, lw=1.3, zorder=3, label=words)


def _bars(value: float, ends: Sequence[float] | None) -> list[list[float]] | None:
    """Lengths below and above; an interval need not hold a mean over seeds."""
    return [[max(0.0, value - ends[0])], [max(0.0, ends[1] - value)]] if ends else None


def _numbers(
    axes: Any, rows: Sequence[Row], along: Sequence[int], where: Sequence[tuple[float, float]], up: bool
) -> None:
    """Number the front's points on its empty side, the best first, and say below the legend what they are."""
    lines = []
    for number, at in enumerate(along, start=1):
        axes.annotate(
            str(number), where[at], xytext=(-8, 8 if up else -8), textcoords="offset points", fontsize=9,
            fontweight="bold", ha="right", va="bottom" if up else "top", color=INK, zorder=6,
        )  # fmt: skip
        values = ", ".join(
            f"{key.rpartition('.')[2]} {_short(value)}" for key, value in rows[at]["values"].items()
        )
        if number <= MOST_LISTED:
            lines += textwrap.wrap(f"{number}  {values}", 34, subsequent_indent="    ")
    if len(along) > MOST_LISTED:
        lines.append(f"…  {len(along) - MOST_LISTED} more: summary.json")
    axes.text(
        1.02,
        0.74,
        "\n".join(["On the front:", *lines]),
        transform=axes.transAxes,
        va="top",
        fontsize=8,
        color=INK,
    )


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
