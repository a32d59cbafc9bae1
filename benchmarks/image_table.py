"""The table and the loss curves of docs/multimodal.md, from several seeds' attack folders.

    PYTHONPATH=. python benchmarks/image_table.py runs/pgd-0 runs/pgd-1 runs/pgd-2 --plot docs/pictures/image_pgd.png

A behaviour counts if one of an attack's attempts does: for the deciding judge, and as *answered* (neither refused nor
broken). The base is the same in all folders, and is read from the first; of the rerouted models, shares are means over
the seeds with the interval of as many behaviours as one seed has. Relative: rerouted / base − 1.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.image_attacks import mean_curve
from rerouting.attacks.image_pgd import POINTS
from rerouting.core.files import read_jsonl
from rerouting.core.findings import MODELS
from rerouting.core.pictures import save_picture
from rerouting.core.stats import wilson
from rerouting.core.tables import markdown_table

Row = dict[str, Any]
FIGURES = ("answered", "judged harmful")


def share(rows: Sequence[Row], hit: Callable[[Row], bool]) -> tuple[float, int]:
    """Behaviours with a hit among their attempts, as a share, and how many there are."""
    found: dict[str, bool] = defaultdict(bool)
    for row in rows:
        found[row["id"]] |= hit(row)
    return fmean(found.values()), len(found)


def line(seeds: Sequence[Sequence[Row]], attack: str, figure: str, judge: str) -> list[str]:
    """One line of the table."""
    hit = {
        "answered": lambda row: row["label"] == "answered",
        "judged harmful": lambda row: bool(row["verdicts"][judge]["yes"]),
    }[figure]
    by_model = {
        model: [share([row for row in rows if (row["attack"], row["model"]) == (attack, model)], hit) for rows in seeds]
        for model in MODELS
    }
    (before, count), after = by_model["base"][0], [one for one, _ in by_model["rerouted"]]
    mean = fmean(after)
    change = f"{100 * (mean / before - 1):+.0f} %" if before else ""
    return [
        *(attack, figure, str(count), _interval(before, count), _interval(mean, count)),
        *(", ".join(f"{100 * one:.0f}" for one in after), change),
    ]


def _interval(value: float, count: int) -> str:
    low, high = wilson(value, count)
    return f"{100 * value:.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def curves(seeds: Sequence[Sequence[Row]]) -> dict[str, list[list[float]]]:
    """Mean loss along the attack of each model, by seed; the base's once."""
    found: dict[str, list[list[float]]] = {}
    for seed, rows in enumerate(seeds):
        for model in MODELS if not seed else MODELS[1:]:
            own = [row["trace"] for row in rows if (row["attack"], row["model"]) == ("image_pgd", model)]
            found.setdefault(model, []).append(mean_curve(own))
    return found


def draw(found: dict[str, list[list[float]]], every: int, file: Path) -> None:
    """Loss over steps, a line a model."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6))
    for model, colour in zip(MODELS, ("#444444", "#c2410c"), strict=True):
        for at, curve in enumerate(found[model]):
            label = model if len(found[model]) == 1 else f"{model}, seed {at}"
            axes.plot([every * point for point in range(len(curve))], curve, color=colour, alpha=1 - 0.3 * at, label=label)
    axes.set(xlabel="step", ylabel="loss of the first tokens, nats", ylim=(0, None))
    axes.legend(frameon=False)
    save_picture(figure, file)


def main() -> None:
    """Print the table, draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--plot", type=Path, help="PNG of the loss along image_pgd")
    parser.add_argument("--steps", type=int, default=300, help="image_pgd's option, for the plot's axis")
    given = parser.parse_args()
    seeds = [list(read_jsonl(folder / "results.jsonl")) for folder in given.folders]
    judge = json.loads((given.folders[0] / "summary.json").read_text())["judge"]
    attacks = list(dict.fromkeys(row["attack"] for row in seeds[0]))
    columns = ("attack", "behaviours, %", "n", "base", "rerouted", "by seed", "relative")
    lines = [line(seeds, attack, figure, judge) for attack in attacks for figure in FIGURES]
    print("\n".join(markdown_table(columns, lines)))
    if given.plot and "image_pgd" in attacks:
        draw(curves(seeds), max(1, given.steps // POINTS), given.plot)


if __name__ == "__main__":
    main()
