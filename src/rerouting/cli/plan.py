"""Say what a run would cost, before any weights are loaded: parameters, operations, memory, time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from rerouting.cli._console import console
from rerouting.core.config import COMMAND_LINE, add_config_arguments, config_from, from_mapping
from rerouting.core.conversion import field_hints
from rerouting.core.errors import UserError
from rerouting.training.config import RunConfig
from rerouting.training.plan_config import PlanConfig

if TYPE_CHECKING:
    from rich.table import Table


def add_arguments(parser: ArgumentParser) -> None:
    """Options of the run and its recipe as for train, and what is assumed of data and machine."""
    parser.add_class_arguments(PlanConfig, None)
    parser.add_argument("--json", action="store_true", help="Print one JSON object: bytes, TFLOP, seconds.")
    add_config_arguments(parser, RunConfig)


def run(args: Namespace) -> int:
    """Print the plan."""
    values = args.as_dict()
    options = from_mapping(PlanConfig, {name: values[name] for name in field_hints(PlanConfig)}, COMMAND_LINE)
    if options.run and not args.recipe and not args.config:
        raise UserError(
            "--run gives the lengths of a run's streams, not its configuration",
            f"add --config {options.run}/config.yaml, or a recipe",
        )
    config = config_from(args, RunConfig)

    import json

    from rerouting.pipeline.plan import plan

    found = plan(config, options)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _show(found, config.training.steps)
    return 0


def _show(found: dict[str, Any], steps: int) -> None:

    console().print(_table(found, steps))
    print(f"model: {found['model']['shape']}")
    print(f"tokens: {found['tokens']['source']}")
    for note in found["notes"]:
        print(f"- {note}")


def _table(found: dict[str, Any], steps: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    devices = found["devices"]
    sharing = f"{devices['count']} × {devices['strategy']}, " if devices["count"] > 1 else ""
    model = found["model"]
    title = f"{model['name']}: {sharing}{model['device']}, {model['dtype']}"
    shown = Table("", "", "with recomputation", title=Text(title))
    for section in (_parameters(found), _work(found), _memory(found), _time(found, steps)):
        for row in section:
            shown.add_row(*map(Text, row))
        shown.add_section()
    return shown


Rows = list[tuple[str, str, str]]


def _parameters(found: dict[str, Any]) -> Rows:
    counts = found["parameters"]
    trunk = f"trunk: embeddings and {counts['trunk_blocks']} of {counts['blocks']} blocks"
    return [
        ("parameters", f"{counts['total']:,}", ""),
        (trunk, f"{counts['trunk']:,}", ""),
        ("trainable: LoRA", f"{counts['trainable']:,}", ""),
    ]


def _work(found: dict[str, Any]) -> Rows:
    tokens = found["tokens"]
    streams = (tokens["circuit_breaker"], tokens["retain"])
    mix = " + ".join(f"{stream['sequences']} × {stream['mean']:,.0f}" for stream in streams)
    rows = [("real tokens a step", f"{tokens['step']:,.0f} ({mix})", "")]
    labels = {
        "frozen": "TFLOP a step: frozen matrices",
        "lora": "LoRA products",
        "attention": "attention",
        "total": "all",
    }
    plain, again = found["tflop"]["plain"], found["tflop"]["recompute"]
    return rows + [
        (_indented(key, label, "frozen"), f"{plain[key]:,.3g}", f"{again[key]:,.3g}")
        for key, label in labels.items()
    ]


def _memory(found: dict[str, Any]) -> Rows:
    labels = {
        "weights": "GiB a device: weights",
        "gathered": "weights gathered from other devices",
        "adapters": "adapters",
        "gradients": "their gradients",
        "moments": "AdamW's moments",
        "reference": "reference states of a micro-batch",
        "activations": "activations of a micro-batch",
        "total": "all",
    }
    plain, again = found["memory"]["plain"], found["memory"]["recompute"]
    return [
        (_indented(key, label, "weights"), _gib(plain[key]), _gib(again[key]))
        for key, label in labels.items()
        if key != "gathered" or plain[key]
    ]


def _time(found: dict[str, Any], steps: int) -> Rows:
    time = found["time"]
    plain, again = time["plain"], time["recompute"]
    return [
        ("TFLOP/s a device, matrix products", f"{time['rate']:,.3g} ({time['rate_source']})", ""),
        ("share of it that a step reaches", f"{time['efficiency']:g}", ""),
        ("seconds a step", f"{plain['step']:,.3g}", f"{again['step']:,.3g}"),
        (f"the run's {steps} steps", _duration(plain["run"]), _duration(again["run"])),
    ]


def _indented(key: str, label: str, first: str) -> str:
    return label if key == first else f"  {label}"


def _gib(count: float) -> str:
    return f"{count / 2**30:,.3f}" if count < 2**30 else f"{count / 2**30:,.1f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:,.1f} min"
    return f"{seconds / 3600:,.1f} h"
