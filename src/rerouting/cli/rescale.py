"""Keep another share of what a run trained, as a run of its own: another trade-off without training."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rerouting.cli._console import beside, say


def add_arguments(parser: ArgumentParser) -> None:
    """The run, the strength, and the folder of the new run."""
    parser.add_argument("run", type=Path, help="Run directory, as left by train or quickstart.")
    parser.add_argument(
        "--strength",
        type=float,
        required=True,
        help="Share of the adapter's effect to keep, of what was trained (also where RUN has a part of it already).",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="Folder of the new run, RUN-x0.9 unless given; it goes on if stopped.",
    )


def run(args: Namespace) -> int:
    """Take over, merge, evaluate what the recipe evaluates; say what comes next."""
    from rerouting.cli._shown import show_table
    from rerouting.pipeline.rescale import rescale

    out = args.out or beside(args.run, f"x{args.strength:g}")
    summary = rescale(args.run, out, args.strength, say)
    if summary:
        show_table(summary, str(out))
    print(f"adapter and merged model: {out}; what it costs: rerouting evaluate {out}")
    return 0
