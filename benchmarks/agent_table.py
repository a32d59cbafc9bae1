"""The Markdown table of docs/agents.md from several seeds' rows of the measure `tool_calls`.

    PYTHONPATH=. python benchmarks/agent_table.py runs/agent-0/kept runs/agent-1/kept runs/agent-2/kept
    PYTHONPATH=. python benchmarks/agent_table.py seed*/test-rows.jsonl.gz --choose      # one line each, to choose by
    PYTHONPATH=. python benchmarks/agent_table.py … --runs runs/agent-* --plot agents.png  # and the runs' courses

Each is a folder that `rerouting evaluate` wrote, or its file of rows, as it is or gzipped. The unit is the request: its
variants and the seeds are averaged first, since they are no independent observations. Shares: mean over the seeds,
Wilson's interval for so many requests, and the lowest and the highest seed. Differences: normal interval over requests,
paired. Relative change: rerouted / base − 1, interval by bootstrap over requests.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rerouting.core.files import read_jsonl
from rerouting.core.findings import mean
from rerouting.core.pictures import save_picture
from rerouting.core.stats import wilson
from rerouting.core.tables import markdown_table

Row = dict[str, Any]
Hit = Callable[[Row], bool]
HARMLESS = ("ordinary", "borderline")
FIGURES: dict[str, Hit] = {
    "harmful call": lambda own: own["harm"],
    "right call by form": lambda own: not own["mismatch"],
    "right call by effect": lambda own: own["effect"],
    "no call": lambda own: not own["calls"],
}
COLUMNS = ("figure, %", "of", "n", "base", "rerouted", "seeds", "difference", "relative")
DRAWS = 2000


def rows_of(place: Path) -> list[Row]:
    """The rows of one seed."""
    file = place / "rows" / "tool_calls.jsonl" if place.is_dir() else place
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()
    return [json.loads(line) for line in text.splitlines()]


def shares(rows: Sequence[Row], part: str, model: str, hit: Hit) -> dict[str, float]:
    """Each request's share of hits among its variants."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["part"] == part:
            found.setdefault(row["id"].partition("#")[0], []).append(float(hit(row[model])))
    return {name: sum(own) / len(own) for name, own in found.items()}


def line(seeds: Sequence[Sequence[Row]], part: str, figure: str) -> dict[str, Any]:
    """One line of the table as numbers.

    Raises:
        SystemExit: the seeds were not asked the same requests.
    """
    hit = FIGURES[figure]
    base, rerouted = ([shares(rows, part, model, hit) for rows in seeds] for model in ("base", "rerouted"))
    names = list(base[0])
    if any(set(one) != set(names) for one in (*base, *rerouted)):
        sys.exit(f"{part}: the seeds were not asked the same requests")
    pairs = [
        (sum(one[name] for one in base) / len(seeds), sum(one[name] for one in rerouted) / len(seeds))
        for name in names
    ]
    before, after = (mean([pair[at] for pair in pairs])[0] for at in (0, 1))
    return {
        "figure": figure,
        "part": part,
        "n": len(pairs),
        "base": (before, wilson(before, len(pairs))),
        "rerouted": (after, wilson(after, len(pairs))),
        "seeds": [sum(one.values()) / len(one) for one in rerouted],
        "difference": mean([after - before for before, after in pairs]),
        "relative": (after / before - 1, _bootstrap(pairs)) if before else None,
    }


def _bootstrap(pairs: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """95 % interval of rerouted / base − 1 over draws of requests; None where a draw has no hit of the base."""
    draw, found = random.Random(0), list[float]()
    for _ in range(DRAWS):
        taken = draw.choices(pairs, k=len(pairs))
        before = sum(pair[0] for pair in taken)
        if not before:
            return None
        found.append(sum(pair[1] for pair in taken) / before - 1)
    found.sort()
    return found[round(0.025 * DRAWS)], found[round(0.975 * DRAWS) - 1]


def lines(seeds: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """All lines: harmful calls by attack, right calls by kind."""
    found = []
    for part in dict.fromkeys(row["part"] for row in seeds[0]):
        harmless = part.startswith(HARMLESS)
        figures = [name for name in FIGURES if harmless != (name == "harmful call")]
        found += [line(seeds, part, name) for name in figures]
    return found


def cells(one: dict[str, Any]) -> list[str]:
    """A line's cells, in per cent."""

    def shown(value: tuple[float, tuple[float, float] | None] | None, sign: str = "") -> str:
        if value is None:
            return "–"
        ends = (
            "" if value[1] is None else " [" + ", ".join(f"{100 * end:{sign}.1f}" for end in value[1]) + "]"
        )
        return f"{100 * value[0]:{sign}.1f}{ends}"

    seeds = one["seeds"]
    spread = f"{100 * min(seeds):.1f} – {100 * max(seeds):.1f}" if len(seeds) > 1 else "–"
    return [
        one["figure"],
        one["part"],
        str(one["n"]),
        shown(one["base"]),
        shown(one["rerouted"]),
        spread,
        shown(one["difference"], "+"),
        shown(one["relative"], "+") if one["figure"] == "harmful call" else "",
    ]


def draw(runs: Sequence[Path], file: Path) -> None:
    """How far held-out harmful calls went, and what held-out harmless ones cost, along each run."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4))
    for at, run in enumerate(runs):
        rows = [row for row in read_jsonl(run / "metrics.jsonl") if "benign_loss" in row]
        steps, look = [row["step"] for row in rows], {"alpha": 1 - 0.3 * at, "label": f"seed {at}"}
        cosine = [fmean(row["held_out_cosine"].values()) for row in rows]
        axes[0].plot(steps, cosine, color="#c2410c", **look)
        axes[1].plot(steps, [row["benign_loss"] - row["benign_loss_base"] for row in rows], color="#0f766e", **look)
    axes[0].set(xlabel="step", ylabel="cosine of harmful calls' states")
    axes[1].set(xlabel="step", ylabel="rise of harmless calls, nats a token", ylim=(0, None))
    for one in axes:
        one.legend(frameon=False)
    save_picture(figure, file)


def choice(rows: Sequence[Row]) -> str:
    """What the targets are about, in one line: harmful calls plain and forced, right calls by form, no call."""
    wanted = [(part, "harmful call") for part in ("no attack", "forced call")]
    wanted += [(part, "right call by form") for part in HARMLESS] + [("borderline", "no call")]
    found = [(part, figure, line([rows], part, figure)) for part, figure in wanted]
    return "; ".join(
        f"{figure}, {part}: {100 * one['base'][0]:.1f} → {100 * one['rerouted'][0]:.1f}"
        for part, figure, one in found
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "places", nargs="+", type=Path, help="folders of `rerouting evaluate`, or files of rows"
    )
    parser.add_argument("--choose", action="store_true", help="one line a place in place of the table of all")
    parser.add_argument("--json", action="store_true", help="the lines as JSON")
    parser.add_argument("--runs", nargs="*", type=Path, default=[], help="the seeds' runs, for --plot")
    parser.add_argument("--plot", type=Path, help="PNG of their held-out figures by step")
    args = parser.parse_args(arguments)
    if args.plot:
        draw(args.runs, args.plot)
    seeds = [rows_of(place) for place in args.places]
    if args.choose:
        text = "\n".join(f"{place}: {choice(rows)}" for place, rows in zip(args.places, seeds, strict=True))
    elif args.json:
        text = json.dumps(lines(seeds), indent=2)
    else:
        text = "\n".join(markdown_table(COLUMNS, map(cells, lines(seeds))))
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
