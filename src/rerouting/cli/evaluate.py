"""Measure what a run's circuit breakers cost: capability, over-refusal, drift, facts."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rerouting.cli._console import console
from rerouting.core.config import add_config_arguments, config_from
from rerouting.evaluation.kept_config import KeptConfig


def add_arguments(parser: ArgumentParser) -> None:
    """The run, the measures, and where the results go."""
    parser.add_argument("run", nargs="?", default=None, help="Run directory; the same as --model.")
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="Folder of the results, RUN/kept (with base: runs/MODEL/kept) unless given; what it holds is not "
        "measured again.",
    )
    parser.add_argument(
        "--details", action="store_true", help="Also print the figures by category and layer."
    )
    add_config_arguments(parser, KeptConfig)


def run(args: Namespace) -> int:
    """Measure and print the table."""
    from rich.table import Table
    from rich.text import Text

    from rerouting.evaluation.kept_table import COLUMNS, NOTE, notes, table_rows
    from rerouting.pipeline.kept import kept_run

    config = config_from(args, KeptConfig)
    config.model = args.run or config.model
    home = Path("runs") / config.model.replace("/", "--") if config.base else Path(config.model)
    out = args.out or home / "kept"
    summary = kept_run(config, out)
    shown = Table(*COLUMNS, title=Text(f"{config.model}: what the circuit breakers cost"))
    for row in [*table_rows(summary), *(table_rows(summary, details=True) if args.details else ())]:
        shown.add_row(*(Text(cell) for cell in row))
    console(160).print(shown)
    print("\n".join([NOTE, *notes(summary)]))
    print(f"figures, rows and answers: {out}")
    return 0
