"""Hooks of the docs site (mkdocs.yml): links to source files become their paths, and the README's table a figure.

The figure is drawn at every build from the numbers that stand in README.md, so that it cannot fall behind them.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
OUTSIDE = re.compile(r"\[[^\]]+\]\(\.\./([^)#]+)\)")
PLACE = "<!-- quickstart: figure -->"
LABELS = {"answered": "#4477aa", "refused": "#ccbb44", "broken": "#ee6677"}
THEMES = {"light": "#30343b", "dark": "#d5d9e2"}
Row = tuple[str, str, int, dict[str, float]]


def on_files(files: Files, config: Any) -> Files:
    """Add the figure, in a colour of text for each scheme."""
    rows = quickstart_rows((ROOT / "README.md").read_text(encoding="utf-8"))
    for name, colour in THEMES.items():
        files.append(File.generated(config, f"images/quickstart-{name}.svg", content=figure(rows, colour)))
    return files


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Links out of docs/ become paths, and the comment on the first page the figure."""
    shown = "; ".join(_said(row) for row in quickstart_rows((ROOT / "README.md").read_text(encoding="utf-8")))
    images = "\n".join(f"![{shown}](images/quickstart-{name}.svg#only-{name})" for name in THEMES)
    return OUTSIDE.sub(lambda found: f"`{found[1]}`", markdown).replace(PLACE, images)


def quickstart_rows(readme: str) -> list[Row]:
    """Set, model, n and shares in percent of each row of the quickstart's table in the README."""
    pattern = r"^(\w+) +(base|rerouted) +(\d+) +([\d.]+) \[[^]]+\] +([\d.]+) \[[^]]+\] +([\d.]+) \[[^]]+\]"
    found = re.findall(pattern, readme, flags=re.MULTILINE)
    return [(one[0], one[1], int(one[2]), dict(zip(LABELS, map(float, one[3:]), strict=True))) for one in found]


def figure(rows: list[Row], colour: str) -> bytes:
    """Stacked bars as SVG, letters as outlines, so that no font is needed."""
    if not rows:
        raise ValueError("README.md has no table of the quickstart to draw")
    plot, axes = plt.subplots(figsize=(5.6, 0.42 * len(rows) + 0.8))
    heights = [-(at + 0.45 * (at // 2)) for at in range(len(rows))]
    left = [0.0] * len(rows)
    for label, fill in LABELS.items():
        shares = [row[3][label] for row in rows]
        axes.barh(heights, shares, left=left, color=fill, label=label, height=0.8)
        for height, start, share in zip(heights, left, shares, strict=True):
            if share >= 6:
                ink = "white" if label == "answered" else "#1b1b1b"
                axes.text(start + share / 2, height, f"{share:.0f}", ha="center", va="center", color=ink, size=8)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.set_yticks(heights, [f"{name}, {model} (n = {n})" for name, model, n, _ in rows])
    axes.set_xlabel("% of answers", color=colour)
    axes.set_xlim(0, 100)
    axes.tick_params(colors=colour)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, labelcolor=colour)
    out = io.BytesIO()
    plot.savefig(out, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    plt.close(plot)
    return out.getvalue()


def _said(row: Row) -> str:
    shares = ", ".join(f"{share:g} % {label}" for label, share in row[3].items())
    return f"{row[0]}, {row[1]}: {shares}"
