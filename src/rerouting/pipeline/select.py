"""Hyperparameters chosen on validation data alone: trials made, compared, and the best one written as a recipe.

The same command may run several times on one folder, one process a device: each trial is made by whoever comes first.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rerouting.core.config import dump_yaml, load_config
from rerouting.core.conversion import plain
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, write_jsonl
from rerouting.evaluation.metrics import (
    check_reachable,
    intervals_over_seeds,
    look_up,
    over_seeds,
    parse_constraint,
    parse_objective,
)
from rerouting.evaluation.search import Values, check_rungs, drawn, grid, survivors
from rerouting.evaluation.select_config import SelectConfig
from rerouting.pipeline.guard import guard
from rerouting.pipeline.selected import asked_for, rank, shown, write_results
from rerouting.pipeline.trial import Trial, remove_models, run_config, run_trial

Row = dict[str, Any]
POLL = 5.0
SAME = (
    *("attacks", "attack_options", "cases", "budget", "judges", "sources"),
    *("measures", "measure_options", "max_new_tokens"),
)
"""What the trials of one folder must share; space, seeds, objective and constraints may change from call to call."""


def select_run(config: SelectConfig, out: Path) -> Row:
    """Make the selection in `out`, or go on with it.

    Returns:
        What summary.json holds: `best` (None if no trial is feasible), `front`, `trials`.

    Raises:
        UserError: a key, metric or constraint that is not understood, test data in reach, or every trial failed.
    """
    trials = _checked(config)
    _claim(config, out)
    rows: list[Row] = []
    for share in config.rungs if config.method == "halving" else (1.0,):
        found = _rung(config, trials, share, out, rows)
        rows += found
        trials = survivors([row["values"] for row in sorted(found, key=rank)], config.keep)
    summary = write_results(config, rows, out)
    if config.models == "best":
        kept = summary["best"]["runs"] if summary["best"] else []
        remove_models(out, [name for row in rows for name in row["runs"] if name not in kept])
    return summary


def _checked(config: SelectConfig) -> list[Values]:
    """The trials of the first rung, after everything that can be wrong was looked at.

    Raises:
        UserError: see `select_run`.
    """
    if not config.attacks or not config.seeds:
        raise UserError("attacks or seeds are empty", "name at least one of each")
    if len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"seeds has one twice: {list(config.seeds)}", "give every seed once")
    metrics = asked_for(config)
    if config.method == "halving":
        check_rungs(config.rungs, config.keep)
    trials = grid(config.space) if config.method == "grid" else drawn(config.space, config.trials)
    usual = run_config(config, {})
    for values in trials:
        run = run_config(config, values)
        for name, one, other in (
            ("seed", run.seed, usual.seed),
            ("evaluation", run.evaluation, usual.evaluation),
            ("data.evaluation", run.data.evaluation, usual.data.evaluation),
        ):
            if one != other:
                raise UserError(
                    f"space varies {name}",
                    "list the seeds in seeds; what is test data must be the same for every trial",
                )
    guard(config, [run_config(config, values).data for values in trials])
    for name in metrics:
        check_reachable(name, config.attacks, config.measures)
    return trials


def _claim(config: SelectConfig, out: Path) -> None:
    """Write config.yaml, or make sure that the one that is there makes trials that can be compared with these.

    Raises:
        UserError: the folder holds another selection, or something else.
    """
    file = out / "config.yaml"
    if out.exists() and any(out.iterdir()) and not file.exists():
        raise UserError(f"{out} is not empty and holds no selection", "name another folder with --out")
    if file.exists():
        known = load_config(SelectConfig, file)
        differ = [name for name in SAME if plain(getattr(known, name)) != plain(getattr(config, name))]
        if differ:
            raise UserError(
                f"{out} holds another selection ({', '.join(differ)} differ)",
                f"name another folder, or go on with {file}",
            )
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(file, dump_yaml(config))


def _rung(
    config: SelectConfig, trials: Sequence[Values], share: float, out: Path, earlier: Sequence[Row]
) -> list[Row]:
    """Every trial with every seed; those of other processes are waited for. trials.jsonl grows with each."""
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
            done[_key(trial.values, trial.seed)] = found
            if config.models == "none":
                remove_models(out, [found["run"]])
            write_jsonl(out / "trials.jsonl", [*earlier, *_rows(config, trials, share, done)])
            said = found.get("failed", "done")
            sys.stderr.write(
                f"trial {len(done)} of {total}, {shown(trial.values)}, seed {trial.seed}: {said}\n"
            )
        if len(left) == len(waiting):
            time.sleep(POLL)
        waiting = left
    return _rows(config, trials, share, done)


def _rows(config: SelectConfig, trials: Sequence[Values], share: float, done: dict[str, Row]) -> list[Row]:
    """The trials that are done with every seed.

    Raises:
        UserError: a metric is asked for that no trial has.
    """
    names = {name for found in done.values() for name in found.get("metrics", {})}
    if names:
        for name in asked_for(config):
            look_up(dict.fromkeys(names), name)
    rows = []
    for values in trials:
        found = [done.get(_key(values, seed)) for seed in config.seeds]
        if None not in found:
            rows.append(_row(config, values, share, [one for one in found if one], names))
    return rows


def _row(config: SelectConfig, values: Values, share: float, found: Sequence[Row], names: set[str]) -> Row:
    """A trial over its seeds; a metric that it lacks and another has was not measured."""
    row: Row = {
        "values": values,
        "share": share,
        "seeds": list(config.seeds),
        "runs": [one["run"] for one in found],
        "seconds": round(sum(one["seconds"] for one in found), 1),
    }
    failed = [one["failed"] for one in found if "failed" in one]
    if failed:
        why = f"failed: {failed[0]}"
        return row | {"feasible": False, "reason": why, "objective": None, "metrics": {}, "intervals": {}}
    metrics = dict.fromkeys(sorted(names)) | over_seeds([one["metrics"] for one in found])
    value = parse_objective(config.objective).value(metrics)
    broken = [why for text in config.constraints if (why := parse_constraint(text).broken_by(metrics))]
    if value is None:
        broken.append("the objective was not measured")
    row |= {"feasible": not broken, "reason": "; ".join(broken), "objective": value, "metrics": metrics}
    return row | {"intervals": intervals_over_seeds([one.get("intervals", {}) for one in found])}


def _key(values: Values, seed: int) -> str:
    return json.dumps([values, seed])
