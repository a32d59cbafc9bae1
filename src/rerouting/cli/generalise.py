"""Train on one category of harm at a time and test on all: which generalises to which (the paper's Figure 5)."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rerouting.core.config import add_config_arguments, config_from
from rerouting.training.config import RunConfig


def add_arguments(parser: ArgumentParser) -> None:
    """The folder of the runs, the test requests, and the recipe as for train."""
    parser.add_argument(
        "--out", type=Path, required=True, help="Folder; runs that are there are not repeated."
    )
    parser.add_argument(
        "--limit", type=int, default=None, help="Test requests of each category; all unless given."
    )
    add_config_arguments(parser, RunConfig)


def run(args: Namespace) -> int:
    """Print the matrix."""
    config = config_from(args, RunConfig)

    from rerouting.pipeline.generalise import generalise, shown

    print(shown(generalise(config, args.out, args.limit)))
    print(f"saved in {args.out}")
    return 0
