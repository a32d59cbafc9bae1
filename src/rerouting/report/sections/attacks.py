"""Attack success rates of both models, attack by attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rerouting.core.findings import MODELS
from rerouting.report.figures import LABELS, Value, cell, ends, rate, shown
from rerouting.report.node import DamagedError, Node
from rerouting.report.parts import (
    Cell,
    Group,
    Limits,
    Note,
    Plot,
    Section,
    Table,
    number,
    row_of,
    without_empty,
)
from rerouting.report.plots import pair_by_category
from rerouting.report.reading import Run, sound

WRITER = "rerouting attack --model RUN"
LEAD = (
    "A behaviour falls if one of an attack's attempts succeeds, by the verdict of the judge named with each table. "
    "Unscored cases enter no rate. The difference is rerouted − base on the behaviours that both have scored, "
    "p by McNemar's exact test."
)


@dataclass(frozen=True)
class Attacked:
    """One attack, or a part of it, on one model."""

    attack: str
    part: str
    model: str
    asr: Value
    node: Node


@dataclass(frozen=True)
class Matrix:
    """One folder of attack results."""

    folder: str
    budget: str
    judge: str
    rows: list[Attacked]
    skipped: list[tuple[str, str]]
    paired: dict[tuple[str, str], Node]
    problems: list[str]

    @property
    def title(self) -> str:
        """Budget and judge."""
        return (
            f"{self.folder}: {self.budget or 'unknown'} budget, judged by {self.judge or 'an unknown judge'}"
        )


def read_matrix(run: Run, folder: str) -> Matrix:
    """A matrix's summary.

    Raises:
        DamagedError: it cannot be read at all.
    """
    summary = run.json(f"{folder}/summary.json", WRITER)
    matrix = Matrix(folder, summary.maybe_text("budget"), summary.maybe_text("judge"), [], [], {}, [])
    for attack, parts in summary["attacks"].entries():
        _, problems = sound([parts], lambda one, attack=attack: _add(matrix, attack, one))  # type: ignore[misc]
        matrix.problems.extend(problems)
    return matrix


def _add(matrix: Matrix, attack: str, parts: Node) -> None:
    if parts.get("skipped"):
        matrix.skipped.append((attack, parts["skipped"].text()))
        return
    for part, pair in parts.entries():
        rows = [Attacked(attack, part, model, rate(pair[model]["asr"]), pair[model]) for model in MODELS]
        matrix.rows.extend(rows)
        found = pair.get("paired")
        if found:
            matrix.paired[attack, part] = found


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One group a run, with every matrix in it."""
    return Section("attacks", "Attacks", LEAD, [_group(run, limits) for run in runs])


def _group(run: Run, limits: Limits) -> Group:
    group = Group(run.name)
    if not run.matrices():
        group.absent(f"no attack results are there; `{run.command(WRITER)}` writes them")
    for folder in run.matrices():
        try:
            matrix = read_matrix(run, folder)
        except DamagedError as damage:
            group.damaged(damage)
            continue
        whole = [row for row in matrix.rows if row.part == "all"]
        if whole:
            group.parts += [_plot(matrix, whole), _table(matrix, whole)]
        parts = [row for row in matrix.rows if row.part != "all"]
        if parts:
            parts = list(group.first(parts, limits.rows, "rows by part"))
            group.parts.append(_table(matrix, parts, f"By set, kind and part ({folder})"))
        group.facts(*((name, f"not run: {why}") for name, why in matrix.skipped))
        group.damaged(*matrix.problems)
        group.parts += _agreement(run, folder)
    return group


def _plot(matrix: Matrix, rows: Sequence[Attacked]) -> Plot:
    pairs = {name: {row.model: row.asr for row in rows if row.attack == name} for name in _names(rows)}
    return pair_by_category(
        f"Attack success rate, {matrix.title}",
        pairs,
        "share of behaviours that fell, %",
        "Lower is more robust.",
    )


def _names(rows: Sequence[Attacked]) -> list[str]:
    return list(dict.fromkeys(row.attack for row in rows))


def _table(matrix: Matrix, rows: Sequence[Attacked], folded: str = "") -> Table:
    columns = ("attack", "model", "n", "ASR %", "verified %", "unscored", *LABELS, "difference")
    made, problems = sound(rows, lambda row: _row(matrix, row))
    matrix.problems.extend(problem for problem in problems if problem not in matrix.problems)
    return without_empty(columns, made, folded)


def _row(matrix: Matrix, row: Attacked) -> list[Cell]:
    node, first = row.node, row.model == "base"
    labels, verified = node.get("labels"), node.get("verified")
    read = "" if verified is None else f"{verified['read'].count()} read"
    beside = node.maybe_text("beside")
    return [
        Cell(row.attack, "" if row.part == "all" else row.part) if first else Cell(""),
        Cell(row.model, beside, row.model),
        number(str(row.asr.n)),
        cell(row.asr, look=row.model),
        Cell("") if verified is None else number(shown(rate(verified).value), read),
        number(str(row.asr.unscored)),
        *(number("" if labels is None else str(labels[label].count())) for label in LABELS),
        Cell("") if first else _difference(matrix.paired.get((row.attack, row.part))),
    ]


def _difference(paired: Node | None) -> Cell:
    if paired is None:
        return Cell("")
    change, p = paired["difference"].number(), paired["p"].number()
    interval = paired["low"].number(), paired["high"].number()
    return number(shown(change, signed=True), f"{ends(interval, signed=True)} p {p:.2g}")


def _agreement(run: Run, folder: str) -> list[Table | Note]:
    summary = run.json(f"{folder}/summary.json", WRITER)
    given = summary.mapping().get("agreement")
    if not given:
        return []
    try:
        rows, problems = sound(summary["agreement"].items(), _pair)
    except DamagedError as damage:
        return [Note(str(damage), "damaged")]
    columns = ("judges", "answers that both scored", "agree %", "Cohen's κ")
    notes = [Note(problem, "damaged") for problem in problems]
    return [Table(columns, rows, f"How far judges agree ({folder})"), *notes]


def _pair(node: Node) -> list[Cell]:
    kappa = node.maybe_number("kappa")
    names = " and ".join(one.text() for one in node["judges"].items())
    return [
        *row_of(names),
        number(str(node["n"].count())),
        number(shown(node.maybe_number("share"))),
        number("undefined" if kappa is None else f"{kappa:.2f}"),
    ]
