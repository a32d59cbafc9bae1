"""The table of `rerouting evaluate`: every finding with its interval, as rows, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rerouting.core.files import atomic_write
from rerouting.core.tables import markdown_table

COLUMNS = ("measure", "figure", "of", "n", "base", "rerouted", "difference", "unscored")
NOTE = (
    "[low, high]: 95 % intervals, Wilson for shares (in %), normal over texts for means; difference: rerouted − base "
    "on the same texts (shares in percentage points, Newcombe, p by McNemar's exact test; means paired). A figure that "
    "only the pair has (KL, agreement, drift) stands under rerouted. Whether an answer is broken (judges/broken.py) is "
    "seen beside the other model's answer in over_refusal, beside the base's own elsewhere."
)
CSV_COLUMNS = (
    *("measure", "figure", "of", "unit", "n", "unscored"),
    *("base", "base_low", "base_high", "rerouted", "rerouted_low", "rerouted_high"),
    *("difference", "difference_low", "difference_high", "p"),
)
Row = dict[str, Any]


def table_rows(summary: Row, details: bool = False) -> list[tuple[str, ...]]:
    """One row a finding: those of everything and of whole sources, or the details (categories, layers)."""
    return [
        _row(name, finding)
        for name, found in summary["measures"].items()
        for finding in found["findings"]
        if details == ("/" in finding["part"] or finding["part"].startswith("layer "))
    ]


def notes(summary: Row) -> list[str]:
    """What the measures say of themselves."""
    return [f"{name}: {note}" for name, found in summary["measures"].items() for note in found["notes"]]


def write_tables(summary: Row, out: Path) -> None:
    """table.md, the details below, and table.csv."""
    parts = [
        *markdown_table(COLUMNS, table_rows(summary)),
        "",
        NOTE,
        "",
        *(f"- {note}" for note in notes(summary)),
    ]
    details = table_rows(summary, details=True)
    if details:
        parts += ["", "## By category and layer", "", *markdown_table(COLUMNS, details)]
    atomic_write(out / "table.md", "\n".join(parts).rstrip() + "\n")
    atomic_write(out / "table.csv", _comma_separated(summary))


def _row(measure: str, finding: Row) -> tuple[str, ...]:
    unit = finding["unit"]
    difference = _figure(finding["difference"], finding["interval"], unit, signed=True)
    if finding["p"] is not None:
        difference += f" (p {finding['p']:.2g})"
    return (
        measure,
        finding["name"] + {"share": " %", "nats": " (nats a token)"}.get(unit, ""),
        finding["part"] or "all",
        str(finding["n"]),
        _figure(finding["base"], finding["base_interval"], unit),
        _figure(finding["rerouted"], finding["rerouted_interval"], unit),
        difference,
        str(finding["unscored"]),
    )


def _figure(value: float | None, interval: Sequence[float] | None, unit: str, signed: bool = False) -> str:
    if value is None:
        return ""
    scale, digits = (100, 1) if unit == "share" else (1, 3)
    form = f"{'+' if signed else ''}.{digits}f"
    shown = format(scale * value, form)
    if interval is None:
        return shown
    low, high = (format(scale * end, form) for end in interval)
    return f"{shown} [{low}, {high}]"


def _comma_separated(summary: Row) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for measure, found in summary["measures"].items():
        for one in found["findings"]:
            row = {
                name: one[name] for name in ("unit", "n", "unscored", "base", "rerouted", "difference", "p")
            }
            row |= {"measure": measure, "figure": one["name"], "of": one["part"] or "all"}
            for name, key in (
                ("base", "base_interval"),
                ("rerouted", "rerouted_interval"),
                ("difference", "interval"),
            ):
                row |= dict(zip((f"{name}_low", f"{name}_high"), one[key] or ("", ""), strict=True))
            writer.writerow(row)
    return out.getvalue()
