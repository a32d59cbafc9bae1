"""Harmfulness probes beside the rerouted model, attack by attack."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rerouting.report.figures import Value, cell
from rerouting.report.node import DamagedError, Node
from rerouting.report.parts import Cell, Group, Limits, Note, Section, Table, number, row_of
from rerouting.report.reading import Run, sound

FILE, WRITER = "probes/table.json", "rerouting probe evaluate RUN"
TABLES = {
    "rows": "Thresholds as trained",
    "matched": "Thresholds by which as many harmless requests are answered as by the rerouted model",
}
LEAD = "Share of attacked behaviours that get through: the base alone, behind each probe, and rerouted."


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One group a run."""
    return Section("probes", "Probes", LEAD, [_group(run, limits) for run in runs])


def _group(run: Run, limits: Limits) -> Group:
    group = Group(run.name)
    try:
        table = run.json(FILE, WRITER)
        columns = [one.text() for one in table["columns"].items()]
        for key, title in TABLES.items():
            given = table.get(key)
            if given is None:
                continue
            rows, problems = sound(group.first(given.items(), limits.rows, "rows"), partial(_row, columns))
            names = ("attack", "n", "unscored", *(f"{name} %" for name in columns))
            group.parts.append(Table(names, rows, title=title))
            group.damaged(*problems)
        notes = table.get("notes")
        group.parts += [Note(one.text()) for one in notes.items()] if notes is not None else []
        thresholds = table.get("thresholds")
        if thresholds is not None:
            group.facts(*((f"threshold, {name}", text) for name, text in _flat(thresholds)))
    except DamagedError as damage:
        group.damaged(damage)
    return group


def _row(columns: Sequence[str], node: Node) -> list[Cell]:
    look = {"base": "base", "rerouted": "rerouted"}
    return [
        *row_of(node["attack"].text()),
        number(str(node["n"].count())),
        number(str(node["unscored"].count())),
        *(
            cell(
                Value(node.maybe_number(name), node.maybe_interval(f"{name}_interval")),
                look=look.get(name, ""),
            )
            for name in columns
        ),
    ]


def _flat(node: Node, deep: int = 0) -> list[tuple[str, str]]:
    """Names and values of a nested mapping, as they stand."""
    found: list[tuple[str, str]] = []
    for name, one in node.entries():
        if isinstance(one.value, dict) and deep < 3:
            found += [(f"{name}, {inner}", text) for inner, text in _flat(one, deep + 1)]
        else:
            found.append((name, one.plainly()))
    return found
