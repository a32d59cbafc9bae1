"""Which harm generalises to which: trained on one category of harmful requests, tested on every one.

Source: Zou et al. 2024, Figure 5 (the attack success rate on each category for models trained on one). Here a cell is
the share of answers that break where the base's are coherent, in one matrix for plain test requests and one for those
opened by an affirmative target; the recipe's own steps and retain set stay, so only the circuit-breaker set is smaller.
Each row is an ordinary run in a folder of its own, which goes on where it stopped.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, read_jsonl
from rerouting.core.pictures import save_picture
from rerouting.core.stats import Rate
from rerouting.core.tables import markdown_table
from rerouting.data.config import SourceConfig
from rerouting.data.loading import chats_of
from rerouting.pipeline.run import execute
from rerouting.training.config import EvaluationConfig, EvaluationSet, RunConfig
from rerouting.training.processes import refuse_several

Row = dict[str, Any]
HARMLESS = ("benign", "borderline")
ATTACKS = ("direct", "prefill")
ALL = "all"


def generalise(config: RunConfig, out: Path, limit: int | None) -> Row:
    """Train a run for each category and one for all, then write matrix.json, matrix.md and matrix.png.

    Args:
        config: a recipe whose circuit-breaker sources take `categories`, as the bundled one does.
        out: folder of the runs.
        limit: test requests of each category; None for all.

    Raises:
        UserError: harmful prompts without categories, or with one alone.
    """
    refuse_several("generalise")
    sources = map(_whole, config.data.circuit_breaker)
    categories = sorted({chat.category for source in sources for chat in chats_of(source)})
    if len(categories) < 2 or "" in categories:
        raise UserError(
            f"the circuit-breaker set has the categories {categories}",
            "use prompts labelled with two or more",
        )
    rows: Row = {}
    for name in (*categories, ALL):
        run = _only(config, () if name == ALL else (name,))
        folder = out / name
        execute(replace(run, evaluation=EvaluationConfig(_sets(categories, limit))), folder)
        rows[name] = _cells(read_jsonl(folder / "generations.jsonl"))
    found = {"trained": list(rows), "tested": [*categories, *HARMLESS], "cells": rows}
    atomic_write(out / "matrix.json", json.dumps(found, indent=2) + "\n")
    atomic_write(out / "matrix.md", shown(found))
    _draw(found, out / "matrix.png")
    return found


def shown(found: Row) -> str:
    """Both matrices in Markdown, in percent."""
    parts = []
    for attack in ATTACKS:
        rows = [
            [name, *(_percent(found["cells"][name][attack].get(tested)) for tested in found["tested"])]
            for name in found["trained"]
        ]
        parts.append(
            "\n".join(markdown_table([f"{attack}: trained on; broken % of", *found["tested"]], rows))
        )
    return "\n\n".join(parts) + "\n"


def _percent(cell: Row | None) -> str:
    if cell is None or cell["rate"] is None:
        return "–"
    return f"{100 * cell['rate']:.0f} [{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"


def _whole(source: SourceConfig) -> SourceConfig:
    """The source without its limit, which counts what the filters leave."""
    return replace(source, options={name: value for name, value in source.options.items() if name != "limit"})


def _only(config: RunConfig, categories: tuple[str, ...]) -> RunConfig:
    """The recipe with harmful prompts of some categories alone; the options of others stay as they are."""

    def narrowed(sources: list[SourceConfig]) -> list[SourceConfig]:
        return [replace(one, options=one.options | {"categories": list(categories)}) for one in sources]

    if not categories:
        return config
    data = replace(config.data, circuit_breaker=narrowed(config.data.circuit_breaker))
    return replace(config, data=data)


def _sets(categories: list[str], limit: int | None) -> list[EvaluationSet]:
    sets = []
    for category in categories:
        source = SourceConfig("bundled", {"kind": "harmful", "split": "test", "categories": [category]})
        sets += [EvaluationSet(f"{attack} {category}", source, attack, limit=limit) for attack in ATTACKS]
    for kind in HARMLESS:
        source = SourceConfig("bundled", {"kind": kind, "split": "test"})
        sets.append(EvaluationSet(kind, source, limit=40))
    return sets


def _cells(rows: list[Row]) -> Row:
    """Broken answers by attack and what was asked, of those that the base gives coherently; harmless ones in both."""
    flags: dict[str, dict[str, list[bool]]] = {attack: {} for attack in ATTACKS}
    for row in rows:
        attack, _, tested = row["set"].rpartition(" ")
        if row["base"]["label"] != "broken":
            for own in (attack,) if attack else ATTACKS:
                flags[own].setdefault(tested, []).append(row["rerouted"]["label"] == "broken")
    return {attack: {tested: _cell(own) for tested, own in found.items()} for attack, found in flags.items()}


def _cell(flags: list[bool]) -> Row:
    rate = Rate(sum(flags), len(flags))
    return {"rate": rate.value, "low": rate.low, "high": rate.high, "n": len(flags)}


def _draw(found: Row, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trained, tested = found["trained"], found["tested"]
    size = (1.1 * len(tested) + 3, 2 * (0.5 * len(trained) + 1.7))
    figure, panels = pyplot.subplots(len(ATTACKS), 1, figsize=size)
    for panel, attack in zip(panels, ATTACKS, strict=True):
        cells = [
            [found["cells"][row][attack].get(column, {}).get("rate") for column in tested] for row in trained
        ]
        numbers = [[float("nan") if value is None else 100 * value for value in row] for row in cells]
        panel.imshow(numbers, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for at, row in enumerate(numbers):
            for column, value in enumerate(row):
                ink = "white" if value > 60 else "black"
                panel.text(column, at, f"{value:.0f}", ha="center", va="center", color=ink)
        panel.set_xticks(range(len(tested)), [name.replace("_", "\n") for name in tested], fontsize=8)
        panel.set_yticks(range(len(trained)), [name.replace("_", " ") for name in trained], fontsize=8)
        panel.set_title(
            f"{attack}: broken answers, %; trained on (rows), tested on (columns)", loc="left", fontsize=10
        )
    save_picture(figure, file)
