"""What `train`, `quickstart` and `generate` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from rerouting.cli._console import console
from rerouting.core.findings import MODELS
from rerouting.pipeline.run import execute
from rerouting.pipeline.run_table import columns, table
from rerouting.training.config import RunConfig


def show_run(config: RunConfig, out: Path) -> int:
    """Make the run; print one table and where everything is."""
    summary = execute(config, out)
    if summary:
        show_table(summary, config.model.name)
    print(f"adapter, merged model, generations and summary: {out}")
    return 0


def show_table(summary: dict[str, Any], title: str) -> None:
    """Rates of base and rerouted model, one row a set and model."""
    shown = Table(*columns(summary), title=Text(f"{title}: base and rerouted"))
    for row in table(summary):
        shown.add_row(*(Text(cell) for cell in row), end_section=row[1] == "rerouted")
    console().print(shown)
    print(
        "broken: gibberish compared with the base's own answer (judges/broken.py), so the base itself is never more"
    )
    print(
        "than empty; lost: the base's own answer's NLL (nats a token) rose by over 1; [low, high]: 95 % Wilson interval"
    )


def show_answers(rows: Sequence[dict[str, Any]]) -> None:
    """Both answers to each prompt, as plain text."""
    for row in rows:
        print(f"\n> {row['messages'][-1]['content']}")
        for model in MODELS:
            print(f"[{model}, {row[model]['label']}] {row['prefill']}{row[model]['answer']}")
    print()
