"""Say how well each layer of the base model tells harmful answers from harmless ones."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from rerouting.cli._console import console
from rerouting.core.config import add_config_arguments, config_from
from rerouting.training.config import RunConfig


def add_arguments(parser: ArgumentParser) -> None:
    """Options of the run and its recipe as for train, and how much is measured."""
    parser.add_argument(
        "--limit", type=int, default=256, help="Different training examples of each stream to fit on."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of a table.")
    add_config_arguments(parser, RunConfig)


def run(args: Namespace) -> int:
    """Print a row a layer, and the layer that this would choose."""
    config = config_from(args, RunConfig)

    import json

    from rerouting.pipeline.layers import layers

    found = layers(config, args.limit)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _show(found, config.model.name)
    return 0


def _show(found: dict[str, Any], name: str) -> None:
    from rich.table import Table
    from rich.text import Text

    counts = found["examples"]
    shown = Table(
        "layer", "AUC, held out", "cosine of the means", title=Text(f"{name}: harmful and harmless answers")
    )
    for row in found["rows"]:
        chosen = " ←" if row["layer"] == found["chosen"] else ""
        shown.add_row(f"{row['layer']}{chosen}", f"{row['auc']:.3f}", f"{row['cosine']:.3f}")
    console().print(shown)
    print(
        f"fitted on {counts['harmful']} harmful and {counts['harmless']} harmless answers, judged on "
        f"{counts['held_out_harmful']} and {counts['held_out_harmless']}"
    )
    print(
        f"chosen: --losses.target_layers [{found['chosen']}] (lowest cosine among areas within 0.01 of the best)"
    )
