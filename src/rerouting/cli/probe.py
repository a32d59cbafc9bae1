"""Train harmfulness probes on a run's data, and compare them with its circuit breakers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from rerouting.cli._console import console
from rerouting.core.config import add_config_arguments, config_from
from rerouting.core.errors import UserError
from rerouting.probes.config import ProbeConfig


def add_arguments(parser: ArgumentParser) -> None:
    """What to do, the run, and the options of training."""
    parser.add_argument(
        "action",
        choices=("train", "evaluate"),
        help="train: fit probes on the run's streams, in RUN/probes. evaluate: what they let through of the base's "
        "answers under each attack, beside the rerouted model.",
    )
    parser.add_argument("run", type=Path, help="Run directory.")
    parser.add_argument(
        "--matrix",
        type=Path,
        default=None,
        help="evaluate: folder that `rerouting attack` wrote for this run; RUN/attacks-BUDGET unless given.",
    )
    add_config_arguments(parser, ProbeConfig)


def run(args: Namespace) -> int:
    """Train or evaluate, and print the table."""
    action, folder, matrix = args.action, args.run, args.matrix
    config = config_from(args, ProbeConfig)
    if action == "evaluate" and config != ProbeConfig():
        raise UserError(
            "options of training were given to evaluate", "they go with: rerouting probe train RUN"
        )
    if action == "train":
        if matrix:
            raise UserError("--matrix goes with evaluate", "leave it out")
        from rerouting.pipeline.probing import train_probes

        _show(train_probes(folder, config), folder)
        return 0
    from rerouting.pipeline.probe_table import probe_table, shown

    print(shown(probe_table(folder, matrix or _own_matrix(folder))))
    return 0


def _own_matrix(folder: Path) -> Path | None:
    """The matrix in the run's folder, if there is one."""
    found = [file.parent for file in sorted(folder.glob("attacks-*/results.jsonl"))]
    if len(found) > 1:
        names = ", ".join(str(one) for one in found)
        raise UserError(f"{folder} has several matrices: {names}", "name one: --matrix FOLDER")
    if not found:
        print(f"no matrix of attacks in {folder}: the run's own evaluation alone", file=sys.stderr)
    return found[0] if found else None


def _show(summary: dict[str, Any], folder: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    title = f"probes on layer {summary['layer']}, {summary['texts']['harmful']} harmful answers"
    shown = Table("probe", "AUC, tokens", "AUC, answers", "threshold", "false alarms", title=Text(title))
    for kind, row in summary["probes"].items():
        areas = f"{row['auc_tokens']:.3f}", f"{row['auc_answers']:.3f}"
        shown.add_row(kind, *areas, f"{row['threshold']:.3f}", f"{row['false_alarms']} of {row['harmless']}")
    console().print(shown)
    if summary["sweep"]:
        best = sorted(summary["sweep"].items(), key=lambda pair: -pair[1])[:5]
        print(
            "layers by AUC of held-out answers: " + ", ".join(f"{layer}: {area:.3f}" for layer, area in best)
        )
    print(f"saved in {folder / 'probes'}")
