"""What stands beside the sets: a data card in the hub's format, and a recipe that trains on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rerouting import __version__
from rerouting.core.attempt import opening_of
from rerouting.core.config import from_mapping, load_mapping
from rerouting.core.conversion import plain
from rerouting.core.recipes import recipe_path
from rerouting.data.domain import Domain
from rerouting.pipeline.making.page import Page, page
from rerouting.training.config import OptimConfig, RunConfig

COLUMNS = {"prompt": "prompt", "response": "response", "category": "category", "form": "form", "id": "id"}
CONFIGS: dict[str, dict[str, tuple[str, ...]]] = {
    "circuit_breaker": {
        "train": ("circuit_breaker.jsonl",),
        "validation": ("validation_circuit_breaker.jsonl", "validation_on_domain.jsonl"),
        "test": ("test_on_domain.jsonl",),
    },
    "retain": {
        "train": ("retain.jsonl", "refusals.jsonl"),
        "validation": ("validation_retain.jsonl",),
        "test": ("test_neighbours.jsonl", "test_borderline.jsonl"),
    },
}
"""Files by configuration and split, as the hub's viewer shows them."""
HELD = {
    "circuit_breaker.jsonl": "forbidden requests with on-domain completions: what is rerouted",
    "retain.jsonl": "borderline twins and benign neighbours with answers: what is held",
    "refusals.jsonl": "forbidden requests, declined: held too, with less weight",
    "validation_circuit_breaker.jsonl": "the same as circuit_breaker.jsonl, for measures while training",
    "validation_retain.jsonl": "the same as retain.jsonl and refusals.jsonl, for measures while training",
    "validation_on_domain.jsonl": "the forbidden requests of that split, without completions: to choose recipes by",
    "test_on_domain.jsonl": "held-out forbidden requests, without completions",
    "test_neighbours.jsonl": "held-out benign neighbours, with answers",
    "test_borderline.jsonl": "held-out borderline twins, with answers",
}
"""Every file, and what it holds."""
OWN, REFUSALS = 2.0, 0.4
"""Weights in the retain stream, where each of the base recipe's sources has 1. A refusal holds every token of a
forbidden request, which is what a breaker of plain requests should learn from."""


def recipe(domain: Domain, out: Path, rows: Mapping[str, int]) -> str:
    """YAML that `rerouting train --config` takes: the domain's base recipe with its data put in place.

    The base recipe's bundled benign prompts stay in the retain set: neighbours alone do not hold everything else.

    Raises:
        UserError: the base recipe is unreadable.
    """
    base = load_mapping(recipe_path(domain.recipe))
    data = {name: value for name, value in base.get("data", {}).items() if name != "evaluation"}
    harmful = {**COLUMNS, "target": "target"}
    own = [
        *_those(out, rows, "retain.jsonl", COLUMNS, OWN),
        *_those(out, rows, "refusals.jsonl", COLUMNS, REFUSALS),
    ]
    general = [one for one in data.get("retain", []) if one["name"] == "bundled"]
    data |= {
        "circuit_breaker": [_chats(out, "circuit_breaker.jsonl", harmful)],
        "retain": [
            *own,
            *_as_many_as_drawn(general, own, from_mapping(RunConfig, base, domain.recipe).training),
        ],
        "held_out_harmful": _those(out, rows, "validation_circuit_breaker.jsonl", harmful),
        "held_out_benign": _those(out, rows, "validation_retain.jsonl", COLUMNS),
    }
    sets = [one for one in _sets(domain, out) if rows.get(Path(one["source"]["options"]["path"]).name)]
    benign = {"name": "bundled", "options": {"kind": "benign", "split": "test"}}
    sets.append({"name": "benign", "source": benign, "limit": 40})
    evaluation = base.get("evaluation", {}) | {"sets": sets}
    made = base | {
        "description": f"Circuit breakers for the domain {domain.name}: a model that no longer {domain.description}. "
        f"Made by `rerouting data make` (rerouting {__version__}) on the recipe {domain.recipe}.",
        "seed": domain.seed,
        "model": base.get("model", {}) | {"name": domain.model},
        "data": data,
        "evaluation": evaluation,
    }
    from_mapping(RunConfig, made, "recipe.yaml")
    return yaml.safe_dump(plain(made), sort_keys=False, allow_unicode=True, width=100)


def _as_many_as_drawn(
    general: Sequence[dict[str, Any]], own: Sequence[dict[str, Any]], training: OptimConfig
) -> list[dict[str, Any]]:
    """The base recipe's sources with no more prompts than training will draw: each has yet to be answered."""
    draws = training.steps * (training.retain_batch_size or training.batch_size)
    total = sum(one.get("weight", 1.0) for one in (*own, *general))
    found = []
    for one in general:
        options, drawn = one.get("options", {}), math.ceil(draws * one.get("weight", 1.0) / total)
        given = options.get("limit")
        found.append(one | {"options": options | {"limit": drawn if given is None else min(given, drawn)}})
    return found


def _sets(domain: Domain, out: Path) -> list[dict[str, Any]]:
    """What is measured before and after training."""
    asked = _chats(out, "test_on_domain.jsonl", {**COLUMNS, "response": None, "target": "target"})
    neighbours = _chats(out, "test_neighbours.jsonl", COLUMNS)
    opened = {"openings": [f"{opening_of(one)}:\n\n" for one in domain.test_openings[:1]]}
    sets: list[dict[str, Any]] = [
        {"name": "on_domain", "source": asked, "signs": domain.on_domain},
        {"name": "prefill", "source": asked, "attack": "prefill", "signs": domain.on_domain},
        {"name": "neighbours", "source": neighbours},
        {"name": "neighbours_prefill", "source": neighbours, "attack": "prefill", "attack_options": opened},
        {"name": "borderline", "source": _chats(out, "test_borderline.jsonl", COLUMNS)},
    ]
    return [one for one in sets if one["name"] != "neighbours_prefill" or domain.test_openings]


def _chats(out: Path, file: str, columns: Mapping[str, str | None]) -> dict[str, Any]:
    return {"name": "chats", "options": {"path": str((out / file).resolve()), **columns}}


def _those(
    out: Path, rows: Mapping[str, int], file: str, columns: Mapping[str, str | None], weight: float = 1.0
) -> list[dict[str, Any]]:
    return [_chats(out, file, columns) | {"weight": weight}] if rows.get(file) else []


def card(domain: Domain, report: Mapping[str, Any]) -> str:
    """README.md of the sets: front matter for the hub, then how they came about. It quotes no completion."""
    about = (
        f"A circuit-breaker set and a matching retain set for a model that must not do this: it {domain.description}. "
        f"Made by `rerouting data make` (rerouting {__version__})."
    )
    lines = (
        "Each line has `id`, `kind`, `prompt`, `category`, `form`, and where it applies `response` and `target` (an "
        "affirmative opening). All requests from one example template, and a request and its twin, are in one split."
    )
    asked = f"Requests asked for as: {report['style']}."
    given = "with the examples of `domain.yaml` beside this page"
    licence = f"`{domain.licence}`, as `domain.yaml` says; what a model wrote may be bound by its terms too."
    return page(domain, report, Page(about, lines, asked, given, licence, HELD, CONFIGS))
