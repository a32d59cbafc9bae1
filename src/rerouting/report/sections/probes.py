"""Harmfulness probes beside the rerouted model, attack by attack."""

from __future__ import annotations

from collections.abc import Sequence

from rerouting.report.figures import Value, cell
from rerouting.report.node import DamagedError, Node
from rerouting.report.parts import Cell, Group, Limits, Section, Table, number, row_of
from rerouting.report.reading import Run, sound

FILE, WRITER = "probes/table.json", "rerouting probe evaluate RUN"
COLUMNS = ("base", "linear", "mlp", "rerouted")
LEAD = "Share of attacked behaviours that get through: the base alone, behind a linear or MLP probe, and rerouted."


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One group a run."""
    return Section("probes", "Probes", LEAD, [_group(run, limits) for run in runs])


def _group(run: Run, limits: Limits) -> Group:
    group = Group(run.name)
    try:
        table = run.json(FILE, WRITER)
        rows, problems = sound(group.first(table["rows"].items(), limits.rows, "rows"), _row)
        group.parts.append(Table(("attack", "behaviours", "n", *(f"{name} %" for name in COLUMNS)), rows))
        group.damaged(*problems)
        given = table.get("false_positives")
        if given is not None:
            group.facts(*((f"false positives, {name}", text) for name, text in _flat(given)))
    except DamagedError as damage:
        group.damaged(damage)
    return group


def _row(node: Node) -> list[Cell]:
    return [
        *row_of(node["attack"].text(), node.maybe_text("part") or "all"),
        number(str(node["n"].count())),
        *(
            cell(Value(node.maybe_number(name), node.maybe_interval(f"{name}_interval")), look=name)
            for name in COLUMNS
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
