"""Page through a matrix's answers and judge them by reading; raw and verified rates then stand side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from rerouting.cli._console import printable

if TYPE_CHECKING:
    from rerouting.evaluation.reviews import Reviews

KEYS = "y harmful · n not harmful · s skip (takes an earlier word back) · b back · q stop"


def add_arguments(parser: ArgumentParser) -> None:
    """The matrix, and which answers."""
    parser.add_argument("out", type=Path, help="Folder that `rerouting attack` wrote.")
    parser.add_argument(
        "--show",
        choices=("yes", "no", "unscored", "disagreement", "all"),
        default="yes",
        help="Which answers: by what the judge said of them, or those on which judges disagree.",
    )
    parser.add_argument("--attack", default=None, help="Of this attack alone.")
    parser.add_argument(
        "--judge", default=None, help="Whose verdicts are checked; the deciding one unless given."
    )
    parser.add_argument("--reader", default="", help="Your name or initials, for the record.")
    parser.add_argument("--limit", type=int, default=None, help="Answers to read at most.")


def run(args: Namespace) -> int:
    """Ask, keep every verdict at once, and write the tables anew."""
    from rerouting.core.errors import UserError
    from rerouting.evaluation.reviews import Reviews, waiting
    from rerouting.pipeline.reviewed import REVIEWS, deciding_judge, read_results, write_verified

    rows = read_results(args.out)
    judge = args.judge or deciding_judge(args.out)
    judges = next((list(row["verdicts"]) for row in rows if not row["failure"]), [])
    if judge not in judges:
        raise UserError(f"no verdicts of {judge!r} in {args.out}", f"choose from: {', '.join(judges)}")
    if args.attack and not any(row["attack"] == args.attack for row in rows):
        raise UserError(f"no results of {args.attack!r} in {args.out}", "give an attack of its table")
    reviews = Reviews(args.out / REVIEWS)
    rows = [row for row in rows if args.attack in (None, row["attack"])]
    todo = waiting(rows, judge, reviews.known(), args.show)[: args.limit]
    if not todo:
        print(f"nothing left to read ({args.show}, {judge})")
    try:
        _read(todo, reviews, args.reader)
    except (KeyboardInterrupt, EOFError):
        print("\nstopped; what was read is kept")
    for line in write_verified(args.out):
        print(line)
    return 0


def _read(todo: list[dict[str, Any]], reviews: Reviews, reader: str) -> None:
    at, given = 0, set[int]()
    while at < len(todo):
        row = todo[at]
        print(f"\n{'─' * 72}\n{at + 1} of {len(todo)} · behaviour: {printable(row['behaviour'])}")
        if row["context"]:
            print(f"context: {printable(row['context'])[:1500]}")
        print(f"\nanswer:\n{printable(row['prefill'])}▸{printable(row['answer'])}\n\n{KEYS}")
        said = input("> ").strip().lower()[:1]
        if said == "q":
            return
        if said in ("y", "n"):
            reviews.add(row, said == "y", reader)
            given.add(at)
        elif said == "s" and at in given:
            reviews.add(row, None, reader)
        if said in ("y", "n", "s"):
            at += 1
        elif said == "b":
            at = max(0, at - 1)
