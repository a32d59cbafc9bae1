"""Put circuit breakers into SmolLM2-135M-Instruct and show that they work: six minutes on two CPU cores."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rerouting.core.config import add_config_arguments, config_from
from rerouting.training.config import RunConfig


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `train`, starting from the quickstart recipe."""
    parser.add_argument(
        "--out", type=Path, default=Path("runs/quickstart"), help="Run directory; an unfinished run goes on."
    )
    add_config_arguments(parser, RunConfig, recipe="quickstart")


def run(args: Namespace) -> int:
    """Make the run and print its table."""
    from rerouting.cli._shown import show_run

    return show_run(config_from(args, RunConfig), args.out)
