"""The results of a selection: trials.jsonl, summary.json, best.yaml, table.md and .csv, pareto.png and .svg."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rerouting.core.config import dump_yaml
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, write_jsonl
from rerouting.core.tables import markdown_table
from rerouting.evaluation.metrics import parse_constraint, parse_objective
from rerouting.evaluation.pareto import front, plot
from rerouting.evaluation.search import Values
from rerouting.evaluation.select_config import SelectConfig
from rerouting.pipeline.trial import seeded

Row = dict[str, Any]
NOTE = (
    "The best of many trials looks better on the data that chose it than it is (the winner's curse): measure it anew, "
    "on test data, before it is reported."
)


def asked_for(config: SelectConfig) -> list[str]:
    """Metrics that the configuration names, the objective's first.

    Raises:
        UserError: an objective or constraint that is not understood.
    """
    held = [parse_constraint(text).metric for text in config.constraints]
    named = [parse_objective(config.objective).metric, *held, config.against]
    return [name for name in dict.fromkeys(named) if name]


def rank(row: Row) -> tuple[bool, bool, float]:
    """Sorts trials, best first: feasible ones, then by the objective."""
    value = row["objective"]
    return not row["feasible"], value is None, 0.0 if value is None else value


def write_results(config: SelectConfig, rows: list[Row], out: Path) -> Row:
    """Write all files.

    Args:
        config: the selection.
        rows: its trials.
        out: its folder.

    Returns:
        What summary.json holds.

    Raises:
        UserError: every trial failed.
    """
    write_jsonl(out / "trials.jsonl", rows)
    if all(row["reason"].startswith("failed") for row in rows):
        raise UserError(f"every trial failed, the first: {rows[0]['reason']}", "see the trials' folders")
    whole = sorted((row for row in rows if row["share"] == 1), key=rank)
    best = whole[0] if whole and whole[0]["feasible"] else None
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
        "front": [points[at]["values"] for at in along],
        "trials": len(rows),
    }
    atomic_write(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    if best:
        recipe = seeded(config, best["values"], config.seeds[0])
        words = f"Chosen by rerouting select on validation data ({config.objective}); {recipe.description}"
        atomic_write(out / "best.yaml", dump_yaml(replace(recipe, description=words)))
    else:  # one that an earlier choice of constraints left
        (out / "best.yaml").unlink(missing_ok=True)
    atomic_write(out / "table.md", _markdown(config, whole))
    atomic_write(out / "table.csv", _comma_separated(config, whole))
    if points:
        plot(points, along, best, config.objective, config.against, out)
    return summary


def _markdown(config: SelectConfig, rows: Sequence[Row]) -> str:
    columns = asked_for(config)
    cells = [
        (
            shown(row["values"]),
            *(_figure(row, name) for name in columns),
            "yes" if row["feasible"] else f"no: {row['reason']}",
            f"{row['seconds']:.0f}",
        )
        for row in rows
    ]
    lines = markdown_table(["trial", *columns, "feasible", "seconds"], cells)
    return "\n".join([*lines, "", "[low, high]: 95 % interval, of the mean over seeds. " + NOTE]) + "\n"


def _comma_separated(config: SelectConfig, rows: Sequence[Row]) -> str:
    columns, keys = asked_for(config), list(config.space)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ends = [f"{name} {end}".strip() for name in columns for end in ("", "low", "high")]
    writer.writerow([*keys, *ends, "feasible", "reason", "seconds"])
    for row in rows:
        figures: list[Any] = []
        for name in columns:
            figures += [row["metrics"].get(name), *(row["intervals"].get(name) or (None, None))]
        values = [_plain(row["values"][key]) for key in keys]
        writer.writerow([*values, *figures, row["feasible"], row["reason"], row["seconds"]])
    return out.getvalue()


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _figure(row: Row, name: str) -> str:
    value, ends = row["metrics"].get(name), row["intervals"].get(name)
    if value is None:
        return "–"
    return f"{value:.4g}" + (f" [{ends[0]:.3g}, {ends[1]:.3g}]" if ends else "")


def shown(values: Values) -> str:
    """A trial's values, by the last parts of their keys."""
    return ", ".join(f"{key.rpartition('.')[2]} {_plain(value)}" for key, value in values.items())
