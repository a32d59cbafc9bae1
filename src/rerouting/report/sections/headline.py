"""What was gained and what it cost, at a glance: answers by set, and the figures of `rerouting evaluate`."""

from __future__ import annotations

from collections.abc import Sequence

from rerouting.report.figures import (
    LABELS,
    LOST,
    NLL,
    Figure,
    cell,
    kept_figures,
    kept_notes,
    set_figures,
    shown,
)
from rerouting.report.node import DamagedError
from rerouting.report.parts import Cell, Group, Limits, Note, Section, Table, number
from rerouting.report.reading import Run

LEAD = (
    "Every answer is answered, refused or broken (gibberish beside the base model's own answer). Broken is what "
    "circuit breaking looks like on harmful requests, and damage on benign ones. A base's answer is lost where it "
    "costs the rerouted model over one nat a token more; forbidden is what has a sign of what must not be said. Small "
    "figures in brackets are 95 % intervals: Wilson for shares, normal for means, Newcombe for differences."
)


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One group a run."""
    return Section("results", "Results", LEAD, [_group(run, limits) for run in runs])


def _group(run: Run, limits: Limits) -> Group:
    group = Group(run.name)
    group.parts += _introduction(run)
    try:
        figures, problems = set_figures(run)
        group.parts.append(_sets(figures))
        group.damaged(*problems)
    except DamagedError as damage:
        group.damaged(damage)
    try:
        figures, problems = kept_figures(run)
        kept = [figure for figure in figures if not figure.detail]
        group.parts.append(_kept(group.first(kept, limits.rows, "figures")))
        group.damaged(*problems)
        group.parts += [Note(note) for note in kept_notes(run)]
    except DamagedError as damage:
        group.damaged(damage)
    return group


def _introduction(run: Run) -> list[Note]:
    """What the run is, in its own words; nothing where it does not say (the card names a missing file)."""
    try:
        config = run.config()
        words = [f"{config['model']['name'].text()}.", config.maybe_text("description")]
    except DamagedError:
        return []
    return [Note(" ".join(word for word in words if word))]


_HEADS = {"shows": "forbidden"}


def _sets(figures: Sequence[Figure]) -> Table:
    rows = []
    there = {figure.name for figure in figures}
    labels = [*LABELS, *(label for label in ("shows", LOST) if label in there)]
    for name in dict.fromkeys(figure.part for figure in figures):
        by_name = {figure.name: figure for figure in figures if figure.part == name}
        for at, model in enumerate(("base", "rerouted")):
            values = {label: figure.models[at][1] for label, figure in by_name.items()}
            shares = tuple((label, share) for label in LABELS if (share := values[label].value))
            rows.append(
                [Cell(name) if at == 0 else Cell(""), Cell(model, look=model, bar=shares)]
                + [number(str(values[LABELS[0]].n))]
                + [cell(values[label]) if label in values else Cell("") for label in labels]
                + [number(shown(values[NLL].value, "nats")) if NLL in values else Cell("")]
            )
    columns = ("set", "model", "n", *(f"{_HEADS.get(label, label)} %" for label in labels), NLL)
    return Table(columns, rows, swatches=True)


def _kept(figures: Sequence[Figure]) -> Table:
    columns = ("figure", "n", "base", "rerouted", "difference", "unscored")
    rows = [
        [
            Cell(figure.titled, figure.where),
            number(str(figure.rerouted.n)),
            cell(figure.base, figure.unit, "base"),
            cell(figure.rerouted, figure.unit, "rerouted"),
            _difference(figure),
            number(str(figure.rerouted.unscored)),
        ]
        for figure in figures
    ]
    return Table(columns, rows, title="What rerouting kept, and what it cost")


def _difference(figure: Figure) -> Cell:
    if figure.difference is None:
        return Cell("")
    shown_alone = cell(figure.difference, figure.unit, signed=True)
    p = "" if figure.p is None else f" p {figure.p:.2g}"
    return Cell(shown_alone.text, shown_alone.small + p, shown_alone.look)
