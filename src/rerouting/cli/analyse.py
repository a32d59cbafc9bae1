"""Show where and when a run's rerouting moves hidden states, on harmful and harmless answers."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from jsonargparse import ArgumentParser, Namespace

from rerouting.cli._console import console


def add_arguments(parser: ArgumentParser) -> None:
    """The run, and how much of it is read."""
    parser.add_argument("run", type=Path, help="Run directory; results go to RUN/analysis.")
    parser.add_argument("--limit", type=int, default=40, help="Texts of each evaluation set.")
    parser.add_argument("--examples", type=int, default=4, help="Texts of each set kept token by token.")


def run(args: Namespace) -> int:
    """Print a row a set."""
    from rich.table import Table
    from rich.text import Text

    from rerouting.pipeline.analysis import analyse

    found = analyse(args.run, args.limit, args.examples)
    layer = found["layer"]
    title = f"both models read the base's answers: cosine at layer {layer}"
    shown = Table("set", "prompt", "answer", "tripped", "at token (median)", title=Text(title))
    for kind, phases in found["kinds"].items():
        trips = found["trips"][kind]
        shown.add_row(
            kind,
            *(f"{phases[phase]['cosine'][layer]:.2f}" for phase in ("prompt", "response")),
            f"{trips['tripped']} of {trips['n']}",
            f"{median(trips['places']):.0f}" if trips["places"] else "–",
        )
    console().print(shown)
    print(f"curves and examples: {args.run / 'analysis'}")
    return 0
