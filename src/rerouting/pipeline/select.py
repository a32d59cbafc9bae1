"""Hyperparameters chosen on validation data alone: trials made, compared, and the best one written as a recipe.

The same command may run several times on one folder, one process a device: each trial is made by whoever comes first.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rerouting.core.config import dump_yaml
from rerouting.core.conversion import plain
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, write_jsonl
from rerouting.core.finder import Component, build
from rerouting.data.loading import chats_of
from rerouting.evaluation.guarding import TestData, asked, sources_in
from rerouting.evaluation.metrics import over_seeds, parse_constraint, parse_objective
from rerouting.evaluation.pareto import front, plot
from rerouting.evaluation.search import Values, check_rungs, drawn, grid, survivors
from rerouting.evaluation.select_config import SelectConfig
from rerouting.pipeline.trial import Trial, run_config, run_trial

Row = dict[str, Any]
POLL = 5.0
NOTE = (
    "The best of many trials looks better on the data that chose it than it is (the winner's curse): measure it anew, "
    "on test data, before it is reported."
)


def select_run(config: SelectConfig, out: Path) -> Row:
    """Make the selection in `out`, or go on with it.

    Returns:
        What summary.json holds: `best` (None if no trial is feasible), `front`, `trials`.

    Raises:
        UserError: a key, metric or constraint that is not understood, test data in reach, or every trial failed.
    """
    trials = _checked(config)
    _claim(config, out)
    rows: dict[str, Row] = {}
    for share in config.rungs if config.method == "halving" else (1.0,):
        found = _rung(config, trials, share, out)
        rows |= {json.dumps([row["values"], row["share"]]): row for row in found}
        trials = survivors([row["values"] for row in sorted(found, key=_rank)], config.keep)
    return _write(config, list(rows.values()), out)


def _checked(config: SelectConfig) -> list[Values]:
    """The trials of the first rung, after everything that can be wrong was looked at.

    Raises:
        UserError: see `select_run`.
    """
    parse_objective(config.objective)
    for text in config.constraints:
        parse_constraint(text)
    if not config.attacks or not config.seeds:
        raise UserError("attacks or seeds are empty", "name at least one of each")
    if config.method == "halving":
        check_rungs(config.rungs, config.keep)
    trials = grid(config.space) if config.method == "grid" else drawn(config.space, config.trials)
    _guard(config, trials)
    return trials


def _guard(config: SelectConfig, trials: Sequence[Values]) -> None:
    """Refuse test data, wherever it could come in.

    Raises:
        UserError: names the option, the request and its test set.
    """
    sets = run_config(config, {}).evaluation.sets
    names = {f"the evaluation set {one.name} of {config.run}": one.source for one in sets}
    test = TestData({name: map(asked, chats_of(source)) for name, source in names.items()})
    given = [(f"sources[{at}]", source) for at, source in enumerate(config.sources)]
    for name in config.measures:
        measure = build("measures", Component(name, config.measure_options.get(name, {})))
        found = list(sources_in(measure, f"measure_options.{name}"))
        if not found:
            raise UserError(
                f"the measure {name} does not say which data it is on",
                "select by measures whose options name their sources; benchmarks are for the test",
            )
        given += found
    for values in trials:
        data = Trial(values, 0).config(config).data
        for stream in ("circuit_breaker", "retain", "held_out_harmful", "held_out_benign"):
            given += [(f"data.{stream}", source) for source in getattr(data, stream)]
    seen = set[str]()
    for where, source in given:
        mark = json.dumps(plain([source.name, source.options]))
        if mark not in seen:
            test.refuse(where, source)
        seen.add(mark)


def _claim(config: SelectConfig, out: Path) -> None:
    """Write config.yaml, or make sure that the one that is there says the same.

    Raises:
        UserError: the folder holds another selection, or something else.
    """
    text = dump_yaml(config)
    file = out / "config.yaml"
    if out.exists() and any(out.iterdir()) and not file.exists():
        raise UserError(f"{out} is not empty and holds no selection", "name another folder with --out")
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise UserError(f"{out} holds another selection", f"name another folder, or go on with {file}")
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(file, text)


def _rung(config: SelectConfig, trials: Sequence[Values], share: float, out: Path) -> list[Row]:
    """Every trial with every seed; those of other processes are waited for."""
    waiting = [Trial(values, seed, share) for values in trials for seed in config.seeds]
    done: dict[str, Row] = {}
    total = len(waiting)
    while waiting:
        left = []
        for trial in waiting:
            found = run_trial(config, trial, out)
            if found is None:
                left.append(trial)
                continue
            _row(config, trial.values, share, [found])  # an unknown metric shows after the first trial
            done[json.dumps([trial.values, trial.seed])] = found
            said = found.get("failed", "done")
            sys.stderr.write(
                f"trial {len(done)} of {total}, {_shown(trial.values)}, seed {trial.seed}: {said}\n"
            )
        if len(left) == len(waiting):
            time.sleep(POLL)
        waiting = left
    return [
        _row(config, values, share, [done[json.dumps([values, seed])] for seed in config.seeds])
        for values in trials
    ]


def _row(config: SelectConfig, values: Values, share: float, found: Sequence[Row]) -> Row:
    """A trial over its seeds."""
    row: Row = {"values": values, "share": share, "seconds": sum(one["seconds"] for one in found)}
    failed = [one["failed"] for one in found if "failed" in one]
    if failed:
        return row | {"feasible": False, "reason": f"failed: {failed[0]}", "objective": None, "metrics": {}}
    metrics = over_seeds([one["metrics"] for one in found])
    value = parse_objective(config.objective).value(metrics)
    broken = [why for text in config.constraints if (why := parse_constraint(text).broken_by(metrics))]
    if value is None:
        broken.append("the objective was not measured")
    return row | {"feasible": not broken, "reason": "; ".join(broken), "objective": value, "metrics": metrics}


def _rank(row: Row) -> tuple[bool, bool, float]:
    return (
        not row["feasible"],
        row["objective"] is None,
        row["objective"] if row["objective"] is not None else 0.0,
    )


def _write(config: SelectConfig, rows: list[Row], out: Path) -> Row:
    """trials.jsonl, summary.json, best.yaml, table.md, pareto.png and .svg."""
    if all(row["reason"].startswith("failed") for row in rows):
        raise UserError(f"every trial failed, the first: {rows[0]['reason']}", "see the trials' folders")
    whole = sorted((row for row in rows if row["share"] == 1), key=_rank)
    best = whole[0] if whole and whole[0]["feasible"] else None
    write_jsonl(out / "trials.jsonl", rows)
    points = [
        row
        for row in whole
        if row["objective"] is not None and row["metrics"].get(config.against) is not None
    ]
    along = front([(row["objective"], row["metrics"][config.against]) for row in points])
    summary: Row = {
        "objective": config.objective,
        "constraints": config.constraints,
        "note": NOTE,
        "best": best,
    }
    summary |= {"front": [points[at]["values"] for at in along], "trials": len(rows)}
    atomic_write(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    if best:
        recipe = run_config(config, best["values"])
        words = f"Chosen by rerouting select on validation data ({config.objective}); {recipe.description}"
        atomic_write(out / "best.yaml", dump_yaml(replace(recipe, description=words)))
    atomic_write(out / "table.md", table(config, whole))
    if points:
        plot(points, along, best, config.objective, config.against, out)
    return summary


def table(config: SelectConfig, rows: Sequence[Row]) -> str:
    """The trials, best first, as Markdown."""
    asked_for = [
        parse_objective(config.objective).metric,
        *(parse_constraint(text).metric for text in config.constraints),
    ]
    columns = list(dict.fromkeys([*asked_for, config.against]))
    lines = [
        "| trial | " + " | ".join(columns) + " | feasible | seconds |",
        "|" + "---|" * (len(columns) + 3),
    ]
    for row in rows:
        figures = [_figure(row["metrics"].get(name)) for name in columns]
        said = "yes" if row["feasible"] else f"no: {row['reason']}"
        lines.append(
            "| " + " | ".join([_shown(row["values"]), *figures, said, f"{row['seconds']:.0f}"]) + " |"
        )
    return "\n".join([*lines, "", NOTE]) + "\n"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _shown(values: Values) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in values.items())
