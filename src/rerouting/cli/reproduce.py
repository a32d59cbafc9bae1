"""Repeat a run from its own record, and say what differs; exit status 0 if it ends bit-equal, else 1."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rerouting.cli._console import beside, console, say


def add_arguments(parser: ArgumentParser) -> None:
    """The run, the folder of the new one, and what is let pass."""
    parser.add_argument("run", type=Path, help="Run directory, as left by train or quickstart.")
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="Folder of the repeated run, RUN-again unless given; it goes on if stopped.",
    )
    parser.add_argument(
        "--anyway", action="store_true", help="Repeat it also if data or model cannot be the same."
    )
    parser.add_argument(
        "--cached",
        action="store_true",
        help="Take completions from the shared cache instead of sampling them anew.",
    )


def run(args: Namespace) -> int:
    """Repeat, print one table, and what differed before."""
    from rich.table import Table
    from rich.text import Text

    from rerouting.pipeline.reproduce import REPORT, reproduce

    out = args.out or beside(args.run, "again")
    found = reproduce(args.run, out, anyway=args.anyway, cached=args.cached, tell=say)
    if not found:  # not the main process
        return 0
    shown = Table("part", "same", "what was found", title=Text(f"{args.run}, repeated in {out}"))
    for name, part in found["parts"].items():
        said = {True: "yes", False: "no", None: "cannot tell"}[part["same"]]
        shown.add_row(name, said, Text(part["note"]))
    console().print(shown)
    for one in found["before"]:
        print(f"differed before: {one['what']}: {one['recorded']} → {one['now']}")
    print(f"{'bit-equal' if found['bit_equal'] else 'not bit-equal'}; everything: {out}/{REPORT}")
    return 0 if found["bit_equal"] else 1
