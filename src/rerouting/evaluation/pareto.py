"""The trials of a selection that no other trial beats in both of two figures, and their picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rerouting.core.files import atomic_write

INK, GREY, ACCENT, GOOD = "#1f2933", "#9aa5b1", "#d64545", "#2d6cdf"


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other is as small as in both figures and smaller in one, by the first figure."""
    found: list[int] = []
    for at in sorted(range(len(points)), key=lambda place: points[place]):
        if not found or points[at][1] < points[found[-1]][1]:
            found.append(at)
    return found


def plot(
    rows: Sequence[dict[str, Any]],
    along: Sequence[int],
    best: dict[str, Any] | None,
    objective: str,
    against: str,
    out: Path,
) -> None:
    """Write pareto.png and pareto.svg.

    Args:
        rows: trials with `objective`, `metrics`, `feasible`, `values`.
        along: places of those on the front.
        best: the one that was chosen.
        objective: as in the configuration; what is maximised is shown as it is.
        against: metric of the other axis.
        out: where the files go.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    word, _, metric = objective.partition(" ")
    sign = -1 if word.startswith("maxim") else 1
    figure, axes = pyplot.subplots(figsize=(7.2, 5.0), layout="constrained")
    across = [row["metrics"][against] for row in rows]
    up = [sign * row["objective"] for row in rows]
    axes.plot(
        [across[at] for at in along],
        [up[at] for at in along],
        color=GREY,
        lw=1.2,
        zorder=1,
        label="Pareto front",
    )
    for feasible, colour, face, words in (
        (True, GOOD, GOOD, "keeps the constraints"),
        (False, GREY, "white", "does not"),
    ):
        own = [at for at, row in enumerate(rows) if row["feasible"] is feasible]
        axes.scatter(
            [across[at] for at in own],
            [up[at] for at in own],
            s=46,
            c=face,
            edgecolors=colour,
            zorder=2,
            label=words,
        )
    if best is not None and best in rows:
        at = list(rows).index(best)
        axes.scatter(
            [across[at]],
            [up[at]],
            s=190,
            facecolors="none",
            edgecolors=ACCENT,
            lw=1.8,
            zorder=3,
            label="chosen",
        )
    for at in along:
        axes.annotate(
            ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in rows[at]["values"].items()),
            (across[at], up[at]), xytext=(6, 5), textcoords="offset points", fontsize=7, color=INK,
        )  # fmt: skip
    axes.set_xlabel(f"{against}  (less is better)", color=INK)
    axes.set_ylabel(f"{metric}  ({'more' if sign < 0 else 'less'} is better)", color=INK)
    axes.set_title(f"{len(rows)} trials on validation data", loc="left", color=INK, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e7eb", lw=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.12)
    axes.legend(frameon=False, fontsize=8)
    for kind in ("png", "svg"):
        data = io.BytesIO()
        figure.savefig(data, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
        atomic_write(out / f"pareto.{kind}", data.getvalue())
    pyplot.close(figure)
