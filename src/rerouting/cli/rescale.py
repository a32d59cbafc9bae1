"""Keep a trained adapter at another strength, as a run of its own: no training, the trade-off in minutes."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """The run, the strength, and the folder of the new run."""
    parser.add_argument("run", type=Path, help="Run directory, as left by train or quickstart.")
    parser.add_argument(
        "--strength",
        type=float,
        required=True,
        help="Share of the adapter's effect to keep, of that which was trained: 0.9 costs less and trips less.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="Folder of the new run, RUN-x0.9 unless given; it goes on if stopped.",
    )


def run(args: Namespace) -> int:
    """Take over, merge, evaluate what the recipe evaluates; say what comes next."""
    from rerouting.pipeline.rescale import rescale

    place = args.run if args.run.name not in ("", "..") else args.run.resolve()
    out = args.out or place.with_name(f"{place.name}-x{args.strength:g}")
    rescale(args.run, out, args.strength)
    print(f"the adapter at {args.strength:g} of its strength: {out}; what it costs: rerouting evaluate {out}")
    return 0
