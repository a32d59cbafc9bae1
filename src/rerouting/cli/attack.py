"""Attack a run's base and rerouted model, judge every answer, print one table."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rerouting.cli._console import console
from rerouting.core.config import add_config_arguments, config_from
from rerouting.evaluation.attack_config import AttackConfig


def add_arguments(parser: ArgumentParser) -> None:
    """Options of the matrix, and its folder."""
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="Folder of the results, RUN/attacks-BUDGET (with base: runs/MODEL/…) unless given; an unfinished matrix "
        "in it goes on.",
    )
    add_config_arguments(parser, AttackConfig)


def run(args: Namespace) -> int:
    """Make the matrix and print its table."""
    from rich.table import Table
    from rich.text import Text

    from rerouting.evaluation.asr_table import COLUMNS, NOTE, notes, table_rows
    from rerouting.pipeline.attack import attack_run

    config = config_from(args, AttackConfig)
    home = Path("runs") / config.model.replace("/", "--") if config.base else Path(config.model)
    out = args.out or home / f"attacks-{config.budget}"
    summary = attack_run(config, out)
    if not summary:  # not the main process
        return 0
    shown = Table(
        *COLUMNS, title=Text(f"{config.model}: {config.budget} budget, judged by {config.judges[0]}")
    )
    for row in table_rows(summary):
        shown.add_row(*(Text(cell) for cell in row), end_section=row[2] == "rerouted")
    console(160).print(shown)
    print(NOTE)
    for line in notes(summary):
        print(line)
    print(f"every attempt: {out}/results.jsonl; table: {out}/table.md, .csv, .tex")
    return 0
