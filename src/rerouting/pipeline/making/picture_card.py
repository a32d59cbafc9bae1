"""What stands beside sets of pictures: a data card, and a recipe that trains on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rerouting import __version__
from rerouting.core.config import from_mapping, load_mapping
from rerouting.core.conversion import plain
from rerouting.core.recipes import recipe_path
from rerouting.data.picture_set import PictureSet
from rerouting.pipeline.making.page import Page, page
from rerouting.training.config import RunConfig

HELD = {
    "circuit_breaker.jsonl": "pictures, harmful requests about them, and completions: what is rerouted",
    "retain.jsonl": "pictures, harmless requests about them, and answers: what is held",
    "validation_circuit_breaker.jsonl": "the same as circuit_breaker.jsonl, for measures while training",
    "validation_retain.jsonl": "the same as retain.jsonl, for measures while training",
    "test_harmful.jsonl": "held-out pictures with harmful requests, without completions",
    "test_benign.jsonl": "held-out pictures with harmless requests, with answers",
}
"""Every file, and what it holds."""
CONFIGS = {
    "circuit_breaker": {
        "train": ("circuit_breaker.jsonl",),
        "validation": ("validation_circuit_breaker.jsonl",),
        "test": ("test_harmful.jsonl",),
    },
    "retain": {
        "train": ("retain.jsonl",),
        "validation": ("validation_retain.jsonl",),
        "test": ("test_benign.jsonl",),
    },
}
"""Files by configuration and split, as the hub's viewer shows them."""
PICTURES_OF_HARM = ("drawn", "pictured")
"""Sources of a base recipe that ours stand in for."""


def recipe(options: PictureSet, out: Path, folder: Path, rows: Mapping[str, int]) -> str:
    """YAML that `rerouting train --config` takes: the base recipe with its pictures of harm replaced by these.

    Its text, and what it retains, stay: pictures alone do not hold everything else. Ours weigh what its sources do
    on the average.

    Args:
        options: name the base recipe.
        out: folder of the sets.
        folder: of the pictures.
        rows: number of rows by file; empty ones are left out.

    Raises:
        UserError: the base recipe is unreadable.
    """
    base = load_mapping(recipe_path(options.recipe))

    def ours(file: str, **more: Any) -> dict[str, Any]:
        columns = {"target": "target", "category": "category"}
        if "benign" in file or "retain" in file:
            columns.pop("target")
        place = {"path": str((out / file).resolve()), "folder": str(folder)}
        return {"name": "pictured", "options": {**place, **columns, **more}}

    def with_ours(key: str, file: str) -> list[dict[str, Any]]:
        given = base.get("data", {}).get(key, [])
        harm = "circuit_breaker" in file
        stay = [one for one in given if not (harm and one["name"] in PICTURES_OF_HARM)]
        shares = [float(one.get("weight", 1.0)) for one in stay]
        own = ours(file) | {"weight": sum(shares) / len(shares) if shares else 1.0}
        return ([own] if rows.get(file) else []) + stay

    data = base.get("data", {}) | {
        "circuit_breaker": with_ours("circuit_breaker", "circuit_breaker.jsonl"),
        "retain": with_ours("retain", "retain.jsonl"),
        "held_out_harmful": with_ours("held_out_harmful", "validation_circuit_breaker.jsonl"),
        "held_out_benign": with_ours("held_out_benign", "validation_retain.jsonl"),
    }
    evaluation = base.get("evaluation", {})
    sets = list(evaluation.get("sets", []))
    if rows.get("test_harmful.jsonl"):
        asked = ours("test_harmful.jsonl", response=None)
        sets.append({"name": "own-harmful", "source": asked})
        sets.append({"name": "own-prefill", "source": asked, "attack": "prefill"})
    if rows.get("test_benign.jsonl"):
        sets.append({"name": "own-benign", "source": ours("test_benign.jsonl")})
    made = base | {
        "description": f"Circuit breakers on the pictures {options.name}. Made by `rerouting data picture` (rerouting "
        f"{__version__}) on the recipe {options.recipe}: {base.get('description', '')}".strip(": "),
        "seed": options.seed,
        "data": data,
        "evaluation": evaluation | {"sets": sets},
    }
    if options.model:
        made["model"] = base.get("model", {}) | {"name": options.model}
    from_mapping(RunConfig, made, "recipe.yaml")
    return yaml.safe_dump(plain(made), sort_keys=False, allow_unicode=True, width=100)


def card(options: PictureSet, report: Mapping[str, Any]) -> str:
    """README.md of the sets, which quotes no completion."""
    about = (
        "Requests about pictures, harmful and harmless, with completions: a multimodal circuit-breaker set and a "
        f"retain set. Made by `rerouting data picture` (rerouting {__version__})."
    )
    lines = (
        "Each line has `id`, `kind`, `image` (the picture's name in its folder, which is not part of these sets), "
        "`prompt`, `category`, `form`, and where it applies `response` and `target` (an affirmative opening). All "
        "requests about one picture, told by its content, are in one split."
    )
    asked = f"Requests asked for as: {report['style']}. Completions were written from the {report['shown']}."
    given = "with the examples of `pictures.yaml` beside this page"
    licence = (
        f"The text: `{options.licence}`, as `pictures.yaml` says; what a model wrote may be bound by its terms too. "
        "The pictures have licences of their own."
    )
    tasks = ("image-text-to-text", "text-generation")
    return page(options, report, Page(about, lines, asked, given, licence, HELD, CONFIGS, tasks))
