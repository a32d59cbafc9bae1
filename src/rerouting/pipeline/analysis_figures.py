"""The analysis as pictures: cosine and norm by layer, and the cosine along the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rerouting.core.pictures import save_picture

COLOURS = ("#d64545", "#b8369a", "#2d6cdf", "#2a9d8f", "#7b8794", "#c98a1b")


def write_figures(found: dict[str, Any], folder: Path) -> None:
    """layers.png and tokens.png, from what analysis.json holds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = dict(zip(found["kinds"], COLOURS * 9, strict=False))
    figure, panels = pyplot.subplots(2, 2, figsize=(10, 6.4), sharex=True, sharey="row")
    for column, phase in enumerate(("prompt", "response")):
        for row, (name, title) in enumerate((("cosine", "cosine"), ("norm_ratio", "norm, rerouted / base"))):
            panel = panels[row][column]
            for kind, phases in found["kinds"].items():
                panel.plot(
                    found["layers"], phases[phase][name], color=colours[kind], label=kind, linewidth=1.6
                )
            panel.axvline(found["layer"], color="#7b8794", linewidth=0.8, linestyle=":")
            panel.set_title(f"{title}, {phase} tokens", loc="left", fontsize=10)
            panel.set_xlabel("layer" if row else "")
    panels[0][0].legend(frameon=False, fontsize=9)
    _finish(figure, folder / "layers.png")
    figure, panel = pyplot.subplots(figsize=(7.5, 3.6))
    for kind, one in found["by_token"].items():
        panel.plot(one["cosine"], color=colours[kind], label=kind, linewidth=1.6)
    panel.set_xlabel("token of the base's answer")
    panel.set_title(f"cosine of base and rerouted state, layer {found['layer']}", loc="left", fontsize=10)
    panel.legend(frameon=False, fontsize=9)
    _finish(figure, folder / "tokens.png")


def _finish(figure: Any, file: Path) -> None:
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#e6eaee", linewidth=0.6)
    save_picture(figure, file)
