"""Upload a run's adapter and model card to a repository on the hub; asks first."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from rerouting.core.errors import UserError

if TYPE_CHECKING:
    from rerouting.pipeline.push import Upload


def add_arguments(parser: ArgumentParser) -> None:
    """The run, the repository, and what goes there."""
    parser.add_argument("run", type=Path, help="Run directory, as left by train or quickstart.")
    parser.add_argument(
        "--repo", required=True, metavar="OWNER/NAME", help="Repository on the hub; made if not there."
    )
    parser.add_argument("--private", action="store_true", help="Make the repository private.")
    parser.add_argument(
        "--merged", action="store_true", help="Upload the merged model too, in its folder `merged`."
    )
    parser.add_argument(
        "--base",
        default="",
        metavar="OWNER/NAME",
        help="The base model on the hub, if the run was given a folder.",
    )
    parser.add_argument("--yes", action="store_true", help="Do not ask.")


def run(args: Namespace) -> int:
    """Show what would be uploaded, ask, upload."""
    from rerouting.pipeline.push import push

    def agreed(upload: Upload) -> bool:
        print("\n".join(upload.lines()))
        return args.yes or _confirmed()

    with tempfile.TemporaryDirectory(prefix="rerouting-push-") as work:
        address = push(
            args.run,
            args.repo,
            Path(work),
            private=args.private,
            merged=args.merged,
            base=args.base,
            agreed=agreed,
        )
    print(f"uploaded: {address}" if address else "nothing was uploaded")
    return 0 if address else 1


def _confirmed() -> bool:
    """Ask on the terminal.

    Raises:
        UserError: there is none.
    """
    if not sys.stdin.isatty():
        raise UserError("nobody is there to ask", "add --yes to upload what is listed above")
    try:
        return input("upload this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
