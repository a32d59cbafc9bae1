"""Write one self-contained HTML page about one or several runs."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """The runs, and the file."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="Run directories; several are compared side by side.",
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="The page; report.html in the first run's folder unless given."
    )


def run(args: Namespace) -> int:
    """Write the page and say where it is."""
    from rerouting.report.page import write_report

    out = write_report(args.runs, args.out)
    print(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0
