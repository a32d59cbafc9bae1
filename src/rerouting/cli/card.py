"""Write a run's model card anew, with what was attacked and measured since."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """The run."""
    parser.add_argument("run", type=Path, help="Run directory, as left by train or quickstart.")


def run(args: Namespace) -> int:
    """Write the cards of the adapter and of the run."""
    from rerouting.pipeline.card import card_again

    card = card_again(args.run)
    print(f"model card: {card}; the run's page: {args.run / 'README.md'}")
    return 0
