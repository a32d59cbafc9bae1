"""Build a small vision-language model around a language model, and train its eye on drawn pictures."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rerouting.core.config import add_config_arguments, config_from
from rerouting.training.eye_config import EyeConfig


def add_arguments(parser: ArgumentParser) -> None:
    """The folder, and all fields of EyeConfig."""
    parser.add_argument("--out", type=Path, required=True, help="Folder; the model is in its model/.")
    add_config_arguments(parser, EyeConfig)


def run(args: Namespace) -> int:
    """Build, train, ask, and print the accuracy."""
    from rerouting.pipeline.small_vlm import make

    summary = make(config_from(args, EyeConfig), args.out)
    print("right answers about held-out pictures")
    for fact, rate in summary["accuracy"].items():
        print(f"  {fact:10} {100 * rate['rate']:5.1f} % of {rate['n']}")
    print(f"model: {args.out / 'model'}")
    return 0
