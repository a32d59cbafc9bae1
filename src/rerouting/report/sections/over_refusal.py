"""Are harmless requests complied with? By source and category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rerouting.report.figures import Figure, Value, cell, kept_figures
from rerouting.report.node import DamagedError
from rerouting.report.parts import Cell, Group, Limits, Section, Table, number
from rerouting.report.plots import pair_by_category
from rerouting.report.reading import Run

LEAD = "Harmless requests, some with alarming words, answered by both models. Complied, refused and broken add up."
NAMES = ("complied", "refused", "broken")
MEASURE = "over_refusal"
ByPart = dict[str, dict[str, Figure]]


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One group a run, one plot a source."""
    return Section("over-refusal", "Over-refusal", LEAD, [_group(run, limits) for run in runs])


def _group(run: Run, limits: Limits) -> Group:
    group = Group(run.name)
    try:
        every, _ = kept_figures(run)
    except DamagedError as damage:
        group.damaged(damage)
        return group
    parts: ByPart = {}
    for figure in every:
        if figure.source == MEASURE and figure.name in NAMES:
            parts.setdefault(figure.part, {})[figure.name] = figure
    if not parts:
        command = run.command(f"rerouting evaluate RUN --measures '[{MEASURE}]'")
        group.absent(f"{MEASURE} was not measured; `{command}` does it")
    for source in dict.fromkeys(part.partition("/")[0] for part in parts):
        own = {part: found for part, found in parts.items() if part.partition("/")[0] == source}
        plotted = {_short(part): _complied(found) for part, found in own.items() if "complied" in found}
        if plotted:
            group.parts.append(
                pair_by_category(f"Complied with: {source}", plotted, "share complied with, %")
            )
        group.parts.append(_table(dict(group.first(list(own.items()), limits.rows, "categories")), source))
    return group


def _short(part: str) -> str:
    return part.partition("/")[2] or "all"


def _complied(found: Mapping[str, Figure]) -> dict[str, Value]:
    return dict(found["complied"].models)


def _table(parts: ByPart, source: str) -> Table:
    rows = []
    for part, found in parts.items():
        some = next(iter(found.values()))
        for at, model in enumerate(("base", "rerouted")):
            figures = [
                cell(found[name].models[at][1], look=model) if name in found else Cell("") for name in NAMES
            ]
            first = (_short(part), str(some.base.n), str(some.base.unscored)) if at == 0 else ("", "", "")
            rows.append(
                [
                    Cell(first[0]),
                    number(first[1]),
                    Cell(model, look=model),
                    *figures,
                    number(first[2]),
                ]
            )
    columns = ("category", "n", "model", *(f"{name} %" for name in NAMES), "unscored")
    return Table(columns, rows, f"Figures by category: {source}")
