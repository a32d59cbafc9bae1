"""Choose hyperparameters on validation data: trials, constraints, a Pareto plot, the best as a recipe."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rerouting.core.config import add_config_arguments, config_from
from rerouting.evaluation.select_config import SelectConfig


def add_arguments(parser: ArgumentParser) -> None:
    """What is varied and measured, and the folder."""
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="Folder of the selection; an unfinished one in it goes on, and the same command in another shell helps.",
    )
    add_config_arguments(parser, SelectConfig)


def run(args: Namespace) -> int:
    """Make the selection; print its table and the best trial."""
    from rerouting.pipeline.select import select_run

    config = config_from(args, SelectConfig)
    summary = select_run(config, args.out)
    print((args.out / "table.md").read_text(encoding="utf-8"))
    if summary["best"] is None:
        print("no trial keeps every constraint: loosen them, or widen the space")
        return 0
    print(f"best: {summary['best']['values']}")
    print(
        f"train it: rerouting train --config {args.out / 'best.yaml'} --out runs/best; trials and plot: {args.out}"
    )
    return 0
