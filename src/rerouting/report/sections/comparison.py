"""Several runs side by side: every figure that they have, one column a run."""

from __future__ import annotations

from collections.abc import Sequence

from rerouting.report.figures import Figure, Value, ends, kept_figures, set_figures, shown
from rerouting.report.node import AbsentError, DamagedError, Node
from rerouting.report.parts import Cell, Group, Limits, Note, Plot, Section, Table, row_of
from rerouting.report.plots import SERIES, axis, errors, in_words, label
from rerouting.report.reading import Run
from rerouting.report.sections.attacks import read_matrix

LEAD = (
    "The rerouted model's figure with its 95 % interval, the base's below. Look at intervals and n before you call a "
    "difference one. “–” means not measured."
)
Key = tuple[str, str, str]


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One table of all runs, what they are made of, and their attack success rates."""
    group = Group("")
    figures: dict[Key, dict[str, Figure]] = {}
    for run in runs:
        found, problems = _figures(run)
        group.damaged(*(f"{run.name}: {problem}" for problem in problems))
        for figure in found:
            figures.setdefault((figure.source, figure.name, figure.part), {})[run.name] = figure
    group.parts += [_setups(runs), *_differing(runs, limits.rows)]
    if figures:
        some = dict(group.first(list(figures.items()), limits.rows, "figures"))
        group.parts += [*_plots(runs, figures), _table(runs, some)]
    bases = {text for run in runs if (text := _base(run))}
    if len(bases) > 1:
        group.parts.insert(
            0, Note("The runs' base models differ: rows compare circuit breakers of unlike models.")
        )
    return Section("comparison", "Runs side by side", LEAD, [group])


def _figures(run: Run) -> tuple[list[Figure], list[str]]:
    found: list[Figure] = []
    problems: list[str] = []
    for read in (set_figures, kept_figures):
        try:
            figures, damaged = read(run)
            found += [figure for figure in figures if not figure.detail]
            problems += damaged
        except AbsentError:
            continue
        except DamagedError as damage:
            problems.append(str(damage))
    for folder in run.matrices():
        try:
            matrix = read_matrix(run, folder)
        except DamagedError as damage:
            problems.append(str(damage))
            continue
        whole = [row for row in matrix.rows if row.part == "all"]
        of = f"{matrix.budget} budget, judge {matrix.judge}"
        found += [
            Figure("attacks", base.attack, of, "share", base.asr, rerouted.asr)
            for base, rerouted in zip(whole[::2], whole[1::2], strict=True)
        ]
        problems += matrix.problems
    return found, problems


def _differing(runs: Sequence[Run], limit: int) -> list[Table]:
    """Every setting on which the runs' configurations differ; none where one cannot be read (the card says so)."""
    try:
        given = [dict(_flat(run.config())) for run in runs]
    except DamagedError:
        return []
    keys = [key for key in dict.fromkeys(key for one in given for key in one) if key != "description"]
    values = {key: [one.get(key, "–") for one in given] for key in keys}
    rows = [row_of(key, *row) for key, row in values.items() if len(set(row)) > 1]
    columns = ("setting", *(run.name for run in runs))
    count = f"{min(limit, len(rows))} of {len(rows)}" if len(rows) > limit else f"All {len(rows)}"
    return [Table(columns, rows[:limit], f"{count} settings that differ")] if rows else []


def _flat(node: Node, prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, one in node.entries():
        inner = isinstance(one.value, dict) and bool(one.value)
        found += _flat(one, f"{prefix}{name}.") if inner else [(prefix + name, one.plainly())]
    return found


def _table(runs: Sequence[Run], figures: dict[Key, dict[str, Figure]]) -> Table:
    rows = []
    for owners in figures.values():
        some = next(iter(owners.values()))
        cells = [_cell(owners.get(run.name)) for run in runs]
        rows.append([Cell(some.titled, some.where), *cells])
    return Table(("figure", *(run.name for run in runs)), rows)


def _cell(figure: Figure | None) -> Cell:
    if figure is None:
        return Cell("–", look="number muted")
    base, rerouted, unit = figure.base, figure.rerouted, figure.unit
    text, below = (f"{shown(one.value, unit)} {ends(one.interval, unit)}".strip() for one in (rerouted, base))
    below = "" if base.value is None else f"base {below}, "
    return Cell(text, f"{below}n {rerouted.n}", "number rerouted")


def _plots(runs: Sequence[Run], figures: dict[Key, dict[str, Figure]]) -> list[Plot]:
    answered = {
        part: owners
        for (source, name, part), owners in figures.items()
        if (source, name) == ("sets", "answered")
    }
    attacked = {key[1:]: owners for key, owners in figures.items() if key[0] == "attacks"}
    alike = len({part for _, part in attacked}) == 1
    attacks = {name if alike else f"{name}, {part}": owners for (name, part), owners in attacked.items()}
    made = [_plot(runs, "Answered, by set", answered)] if answered else []
    return made + ([_plot(runs, "Attack success rate", attacks)] if attacks else [])


def _plot(runs: Sequence[Run], title: str, rows: dict[str, dict[str, Figure]]) -> Plot:
    """Points of every run's rerouted model; hollow ones of its base."""
    names, traces = list(rows), []
    step = 0.7 / max(1, len(runs))
    for number, run in enumerate(runs):
        colour, offset = SERIES[number % len(SERIES)], (number - (len(runs) - 1) / 2) * step
        for model, symbol in (("base", "circle-open"), ("rerouted", "circle")):
            points = [
                (at + offset, name, dict(rows[name][run.name].models)[model])
                for at, name in enumerate(names)
                if run.name in rows[name]
            ]
            traces.append(_points(points, f"{run.name}, {model}", colour, symbol))
    layout = {
        "height": 130 + (30 + 14 * len(runs)) * len(names),
        "xaxis": axis("share, %", range=[-2, 102]),
        "yaxis": {
            "tickvals": list(range(len(names))),
            "ticktext": [label(name, 26) for name in names],
            "range": [len(names) - 0.5, -0.5],
            "automargin": True,
            "zeroline": False,
        },
    }
    return Plot(title, traces, layout, "Filled: rerouted model; hollow: base. Bars are 95 % intervals.")


def _points(
    points: Sequence[tuple[float, str, Value]], name: str, colour: str, symbol: str
) -> dict[str, object]:
    known = [(at, row, value) for at, row, value in points if value.value is not None]
    values = [value for _, _, value in known]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label(name),
        "x": [100 * (value.value or 0) for value in values],
        "y": [at for at, _, _ in known],
        "error_x": errors(values, 100) | {"color": colour},
        "marker": {"color": colour, "size": 8, "symbol": symbol},
        "hoverinfo": "text",
        "hovertext": [f"{label(name)}<br>{label(row)}: {in_words(value)}" for _, row, value in known],
    }


SETUP = (
    ("rerouting loss", ("losses", "reroute", "name")),
    ("retain loss", ("losses", "retain", "name")),
    ("mean of the retain loss", ("losses", "retain_mean")),
    ("schedule", ("losses", "schedule", "name")),
    ("requests behind texts", ("data", "contexts")),
    ("steps", ("training", "steps")),
    ("learning rate", ("training", "learning_rate")),
    ("LoRA rank", ("lora", "rank")),
    ("strength", ("lora", "strength")),
    ("seed", ("seed",)),
)


def _setups(runs: Sequence[Run]) -> Table:
    rows = [[Cell("base model"), *(Cell(_base(run) or "–") for run in runs)]]
    rows += [[Cell(name), *(Cell(_setting(run, keys)) for run in runs)] for name, keys in SETUP]
    return Table(("setup", *(run.name for run in runs)), rows)


def _setting(run: Run, keys: Sequence[str]) -> str:
    try:
        node: Node = run.config()
        for key in keys:
            node = node[key]
        return node.plainly()
    except DamagedError:
        return "–"


def _base(run: Run) -> str:
    try:
        model = run.json("manifest.json", "rerouting train")["model"]
        return f"{model['name'].text()} (sha256 {model['sha256'].text()[:12]}…)"
    except DamagedError:
        return ""
