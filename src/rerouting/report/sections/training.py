"""What training measured, step by step and target layer by target layer."""

from __future__ import annotations

from collections.abc import Sequence

from rerouting.report.figures import TRAIN
from rerouting.report.node import DamagedError, Node
from rerouting.report.parts import Group, Limits, Plot, Section
from rerouting.report.plots import curves
from rerouting.report.reading import Run, sound

LEAD = (
    "Cosine between a harmful answer's states under base and rerouted model: 1 is unchanged. Each target layer has a "
    "line of its own, since one can stay behind. The benign loss is on texts that were held out of training."
)
FILE = "metrics.jsonl"
Lines = dict[str, list[float | None]]
PANELS = (
    ("Losses", "loss", {"reroute_loss": "rerouting", "retain_loss": "retain"}),
    ("Coefficients", "coefficient", {"reroute_coefficient": "rerouting", "retain_coefficient": "retain"}),
    ("Held-out benign loss", "nats a token", {"benign_loss_base": "base", "benign_loss": "rerouted"}),
    ("Distance of retained states", "share of the base's norm", {"retain_relative": "retained"}),
    ("Gradient norm", "norm", {"gradient_norm": "gradient"}),
)


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One group a run."""
    return Section("training", "Training", LEAD, [_group(run, limits) for run in runs])


def _group(run: Run, limits: Limits) -> Group:
    group = Group(run.name)
    try:
        rows, problems = run.rows(FILE, TRAIN)
    except DamagedError as damage:
        group.damaged(damage)
        return group
    steps, worse = sound(rows, lambda row: (row["step"].number(), row))
    problems += worse
    if not steps:
        group.absent(f"{FILE} has no steps")
    places = [step for step, _ in steps]
    nodes = [row for _, row in steps]
    for title, keys in (
        ("Cosine to the base by target layer", {"cosine": "", "held_out_cosine": ", held out"}),
        ("Norm by target layer", {"norm": ""}),
    ):
        lines = _layers(nodes, keys, problems)
        _add(group, title, title.partition(" ")[0].lower(), places, lines, limits)
    for title, unit, names in PANELS:
        lines = {name: _values(nodes, key, problems) for key, name in names.items()}
        _add(group, title, unit, places, lines, limits)
    group.damaged(*dict.fromkeys(problems))
    return group


def _add(
    group: Group,
    title: str,
    unit: str,
    places: Sequence[float],
    lines: Lines,
    limits: Limits,
) -> None:
    known = {name: values for name, values in lines.items() if any(value is not None for value in values)}
    if known:
        made: Plot = curves(title, ("step", places), known, unit, limits.points)
        group.parts.append(made)


def _values(rows: Sequence[Node], key: str, problems: list[str]) -> list[float | None]:
    found: list[float | None] = []
    for row in rows:
        try:
            found.append(row.maybe_number(key))
        except DamagedError as damage:
            found.append(None)
            problems.append(str(damage))
    return found


def _layers(rows: Sequence[Node], keys: dict[str, str], problems: list[str]) -> Lines:
    lines: Lines = {}
    for key, ending in keys.items():
        for at, row in enumerate(rows):
            try:
                given = row.get(key)
                for layer, value in given.entries() if given else ():
                    name = f"layer {layer}{ending}"
                    lines.setdefault(name, [None] * len(rows))[at] = value.number()
            except DamagedError as damage:
                problems.append(str(damage))
    return lines
