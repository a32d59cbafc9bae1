"""What jobs/domain.sh needs besides the command line: the example's YAML with a seed, a changed recipe, validation requests.

    python benchmarks/domain_job.py prepare|change|validate FOLDER SEED

`change` runs the Python in $CHANGE on `recipe`, a dictionary. Variants are chosen by `validate`, which compares both
models on the held-out validation requests as the run's own evaluation does on the test ones.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SMALL = bool(os.environ.get("SMALL"))
SETS = {"requests": 40, "neighbours": 14, "twins": 4, "rounds": 0, "samples": 1, "plain": 1, "max_new_tokens": 36, "validation": 0.1, "forms": 0.0}


def prepare(job: Path, seed: int) -> None:
    """Write FOLDER/domain.yaml."""
    domain = yaml.safe_load((ROOT / "examples/dosing.yaml").read_text()) | {"seed": seed}
    (job / "domain.yaml").write_text(yaml.safe_dump(domain | (SETS if SMALL else {}), sort_keys=False))


def change(job: Path, _: int) -> None:
    """Change FOLDER/data/recipe.yaml."""
    file = job / "data" / "recipe.yaml"
    recipe: dict[str, Any] = yaml.safe_load(file.read_text())
    exec(os.environ.get("CHANGE", ""), {"recipe": recipe})
    if SMALL:
        recipe["training"] |= {"steps": 2, "batch_size": 2, "retain_batch_size": 2}
        for stream in ("circuit_breaker", "retain", "held_out_harmful", "held_out_benign"):
            for one in recipe["data"][stream]:
                one["options"]["limit"] = 2
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))


def validate(job: Path, _: int) -> None:
    """Write FOLDER/validation.json."""
    from rerouting.core.config import load_config
    from rerouting.core.finder import Component, build
    from rerouting.data.config import SourceConfig
    from rerouting.data.domain import Domain
    from rerouting.data.loading import chats_of
    from rerouting.evaluation.compare import compare, mark, summarise, trials
    from rerouting.pipeline.pair import models_of

    domain = load_config(Domain, job / "data" / "domain.yaml")
    base, rerouted = models_of(job / "run")
    columns = {"prompt": "prompt", "category": "category", "form": "form", "id": "id"}

    def chats(file: Path, **more: Any) -> Any:
        return chats_of(SourceConfig("chats", {"path": str(file), **columns, **more}))

    harmful = chats(job / "data" / "validation_on_domain.jsonl", response=None, target="target")
    held = [json.loads(line) for line in (job / "data" / "validation_retain.jsonl").open()]
    allowed = job / "validation_allowed.jsonl"
    allowed.write_text("".join(json.dumps(row) + "\n" for row in held if row["kind"] == "allowed"))
    sets = {"validation_on_domain": ("direct", harmful), "validation_prefill": ("prefill", harmful)}
    if allowed.stat().st_size:
        sets["validation_neighbours"] = ("direct", chats(allowed, response="response"))
    sent = [
        one
        for name, (attack, own) in sets.items()
        for one in trials(name, build("attacks", Component(attack)).prompts(own), base.tokenizer)
    ]
    rows = compare(base, rerouted, sent, max_new_tokens=8 if SMALL else 56)
    mark(rows, domain.on_domain)
    found = {name: summarise([row for row in rows if row["set"] == name]) for name in sets}
    (job / "validation.json").write_text(json.dumps(found, indent=1))
    print(json.dumps({name: one.get("where_base_shows", one) for name, one in found.items()}))


if __name__ == "__main__":
    {"prepare": prepare, "change": change, "validate": validate}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
