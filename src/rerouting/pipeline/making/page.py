"""The data card of generated sets, in the hub's format, whatever they are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rerouting.core.conversion import plain
from rerouting.data.domain import Writing

Configs = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Files by configuration and split, as the hub's viewer shows them."""


@dataclass(frozen=True)
class Page:
    """What is said of one kind of sets.

    Attributes:
        about: what they are, and what made them.
        lines: what a line has, and how it was split.
        asked: how requests were asked for.
        given: what the prompts were filled with.
        licence: of text and whatever else there is.
        held: every file, and what it holds.
        configs: files by configuration and split.
        tasks: as the hub names them.
    """

    about: str
    lines: str
    asked: str
    given: str
    licence: str
    held: Mapping[str, str]
    configs: Configs
    tasks: tuple[str, ...] = ("text-generation",)


def page(writing: Writing, report: Mapping[str, Any], said: Page) -> str:
    """README.md: front matter for the hub, then how the sets came about. It quotes no completion.

    Args:
        writing: how they were written.
        report: rows, hashes, writers, stages and evaluation sets (making/stages.py).
        said: the rest.
    """
    title = f"Circuit breakers: {writing.name}"
    front = {
        "license": writing.licence,
        "language": ["en"] if writing.cleaning.language == "english" else [],
        "pretty_name": title,
        "task_categories": list(said.tasks),
        "tags": ["circuit-breakers", "representation-rerouting", "safety", "synthetic"],
        "size_categories": [_size(sum(report["rows"].values()))],
        "configs": _configs(report["rows"], said.configs),
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n",
        f"# {title}\n",
        f"{said.about} `circuit_breaker.jsonl` holds text that a model should not write; it is here to be trained "
        "against.\n",
        "Train on it: `rerouting train --config recipe.yaml --out runs/mine` (the recipe names this folder).\n",
        "## Files\n",
        _table(
            ("file", "rows", "SHA-256", "what it holds"),
            [
                (f"`{name}`", count, f"`{report['sha256'][name][:16]}`", said.held[name])
                for name, count in report["rows"].items()
            ],
        ),
        f"{said.lines}\n",
        "## Who wrote it\n",
        _table(("part", "by"), [(part, f"`{by}`") for part, by in report["writers"].items()]),
        f"{said.asked} Seed {writing.seed}, temperature {writing.temperature}. The prompts are those of "
        f"`rerouting/pipeline/making/wording.py`, {said.given}.\n",
        "## What was kept, and why the rest was not\n",
        _table(
            ("stage", "kept", "of these", "dropped, by reason"),
            [
                (name, stage["kept"], _counts(stage["notes"]), _counts(stage["dropped"]))
                for name, stage in report["stages"].items()
            ],
        ),
        "Limits:\n",
        _table(("rule", "value"), [(f"`{name}`", value) for name, value in plain(writing.cleaning).items()]),
        "Compared with these sets (and, by hash, with HarmBench's test behaviours and all bundled test prompts):\n",
        _table(
            ("set", "options", "prompts", "SHA-256"),
            [
                (one["name"], f"`{one['options']}`", one["chats"], f"`{one['sha256'][:16]}`")
                for one in report["evaluation"]
            ],
        ),
        f"## Licence\n\n{said.licence}\n",
    ]
    return "\n".join(parts)


def _size(rows: int) -> str:
    """The hub's name for a size."""
    return "n<1K" if rows < 1000 else "1K<n<10K" if rows < 10_000 else "10K<n<100K"


def _configs(rows: Mapping[str, int], configs: Configs) -> list[dict[str, Any]]:
    found = []
    for name, splits in configs.items():
        files: list[dict[str, Any]] = []
        for split, given in splits.items():
            there = [file for file in given if rows.get(file)]
            if there:
                files.append({"split": split, "path": there})
        found.append({"config_name": name, "data_files": files})
    return found


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "–"
