"""Look at data sets, check your own file, or make circuit-breaker and retain sets for a domain or from pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from rerouting.cli._console import console, printable

if TYPE_CHECKING:
    from rerouting.pipeline.making.stages import Report

SHOW = "What a data set holds: counts, lengths, splits, licence, likeness to evaluation sets, samples."
CHECK = "Look through your own file; every fault with its line. Exit status 1 where there are any."
MAKE = "Make the sets that a domain file describes; an unfinished folder goes on."
PICTURE = (
    "Make multimodal sets from pictures: described, asked about, answered; an unfinished folder goes on."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Four actions, each with options of its own."""
    actions = parser.add_subcommands(dest="action")
    actions.add_subcommand("show", _show_parser(type(parser)), help=SHOW)
    actions.add_subcommand("check", _check_parser(type(parser)), help=CHECK)
    actions.add_subcommand("make", _make_parser(type(parser)), help=MAKE)
    actions.add_subcommand("picture", _picture_parser(type(parser)), help=PICTURE)


def _show_parser(kind: type[ArgumentParser]) -> ArgumentParser:
    parser = kind(prog="rerouting data show", description=SHOW)
    parser.add_argument("name", help="A data set (`rerouting list data`), or a file.")
    parser.add_argument("--options", type=dict[str, Any], default={}, help="Options of that data set.")
    parser.add_argument("--samples", type=int, default=3, help="Chats shown, evenly spaced.")
    parser.add_argument(
        "--show-harmful",
        action="store_true",
        help="Show text in full that may be harmful; else it is folded.",
    )
    _add_against(parser)
    return parser


def _check_parser(kind: type[ArgumentParser]) -> ArgumentParser:
    parser = kind(prog="rerouting data check", description=CHECK)
    parser.add_argument("file", help="JSON Lines, JSON, CSV or Parquet.")
    parser.add_argument(
        "--columns",
        type=dict[str, Any],
        default={},
        help="Options of the source chats ({prompt: question, response: text}); the others are guessed.",
    )
    parser.add_argument(
        "--answers",
        choices=("comply", "decline", "any", "none"),
        default="any",
        help="What responses must do (none: there are none).",
    )
    parser.add_argument(
        "--model", type=str | None, default=None, help="A model whose tokenizer counts tokens and sets masks."
    )
    parser.add_argument("--max-prompt", type=int, default=512, help="Tokens of a prompt that training keeps.")
    parser.add_argument(
        "--max-response", type=int, default=512, help="Tokens of a response that training keeps."
    )
    parser.add_argument(
        "--cleaning",
        type=dict[str, Any],
        default={},
        help="Limits in place of the usual: {language: any, near: 0.7}.",
    )
    _add_against(parser)
    return parser


def _make_parser(kind: type[ArgumentParser]) -> ArgumentParser:
    parser = kind(prog="rerouting data make", description=MAKE)
    parser.add_argument(
        "--domain", type=Path, required=True, help="The domain's YAML file (docs/own_domain.md)."
    )
    _add_sets(parser)
    return parser


def _picture_parser(kind: type[ArgumentParser]) -> ArgumentParser:
    from rerouting.core.config import add_config_arguments
    from rerouting.data.picture_set import PictureSet

    parser = kind(prog="rerouting data picture", description=PICTURE)
    parser.add_argument(
        "folder",
        help="Folder of pictures (COCO's train2017), a text file with a picture or reference (drawn:train/7) a line, "
        "or data with a column image.",
    )
    _add_sets(parser)
    add_config_arguments(parser, PictureSet)
    parser.usage = "%(prog)s folder [options]"
    return parser


def _add_sets(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, help="Folder of the sets; an unfinished one goes on."
    )
    parser.add_argument(
        "--train",
        type=Path | None,
        default=None,
        metavar="RUN",
        help="Then train on them, into this run directory.",
    )


def _add_against(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--against",
        type=list[Any],
        default=[],
        help="Further evaluation sets to compare with: '[{name: advbench, options: {path: advbench.csv}}]'.",
    )


def run(args: Namespace) -> int:
    """Show, check, make or picture."""
    chosen: Namespace = args[args.action]
    return {"show": _show, "check": _check, "make": _make, "picture": _picture}[args.action](chosen)


def _show(args: Namespace) -> int:
    from rich.table import Table
    from rich.text import Text

    from rerouting.pipeline.data_show import show
    from rerouting.pipeline.overlap import sources_of

    found = show(args.name, args.options, sources_of(args.against), args.samples, args.show_harmful)
    print(printable(found.name))
    table = Table(show_header=False)
    for label, value in [*found.rows[:1], ("licence", found.licence), *found.rows[1:]]:
        table.add_row(label, Text(printable(value)))
    console().print(table)
    for text in found.samples:
        print(f"\n{printable(text)}")
    if any("words folded]" in text for text in found.samples):
        print("\nfolded, because it may be harmful: --show-harmful shows it")
    return 0


def _check(args: Namespace) -> int:
    from rerouting.core.config import from_mapping
    from rerouting.data.cleaning import CleaningConfig
    from rerouting.pipeline.data_check import Limits, check, usual
    from rerouting.pipeline.overlap import sources_of

    tokenizer = None
    if args.model:
        from rerouting.models.loading import load_tokenizer

        tokenizer = load_tokenizer(args.model)
    cleaning = from_mapping(CleaningConfig, asdict(usual()) | args.cleaning, "--cleaning")
    limits = Limits(
        args.answers, cleaning, tokenizer, args.max_prompt, args.max_response, sources_of(args.against)
    )
    found = check(args.file, args.columns, limits)
    for one in found.faults:
        print(printable(f"{one.where}: {one.kind}" + (f": {one.detail}" if one.detail else "")))
    read = ", ".join(f"{option} = {name}" for option, name in found.columns.items())
    print(f"{found.rows} rows, read as {read}")
    if not found.faults:
        print("no fault found" + ("" if args.model else "; --model NAME also counts tokens"))
        return 0
    print(f"{len(found.faults)} faults: " + ", ".join(f"{kind} {n}" for kind, n in found.counts.items()))
    return 1


def _make(args: Namespace) -> int:
    from rerouting.pipeline.making.make import make

    return _show_sets(make(args.domain, args.out), args)


def _picture(args: Namespace) -> int:
    from rerouting.core.config import config_from
    from rerouting.data.picture_set import PictureSet
    from rerouting.pipeline.making.picture import picture

    return _show_sets(picture(args.folder, config_from(args, PictureSet), args.out), args)


def _show_sets(report: Report, args: Namespace) -> int:
    """What was made; then training, if it is asked for."""
    for line in report.lines():
        print(printable(line))
    if not report.usable or report.broke_off:
        return 1
    if args.train is None:
        print(f"train on it: rerouting train --config {args.out / 'recipe.yaml'} --out runs/{args.out.name}")
        return 0
    from rerouting.cli._shown import show_run
    from rerouting.core.config import load_config
    from rerouting.training.config import RunConfig

    return show_run(load_config(RunConfig, args.out / "recipe.yaml"), args.train)
