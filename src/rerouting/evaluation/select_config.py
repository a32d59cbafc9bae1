"""Options of `rerouting select`. Imports nothing heavy: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rerouting.data.config import SourceConfig


def _bundled(kind: str) -> SourceConfig:
    return SourceConfig("bundled", {"kind": kind, "split": "validation"})


def _validation() -> dict[str, dict[str, Any]]:
    benign = [
        {"name": "bundled", "options": {"kind": kind, "split": "validation"}}
        for kind in ("benign", "borderline")
    ]
    return {"intrinsic": {"sources": benign}, "over_refusal": {"sources": benign}}


@dataclass
class SelectConfig:
    """What is varied, what is measured on validation data, and what counts as best."""

    run: str = "quickstart"
    """Recipe that every trial starts from: its name, or a YAML file. What it evaluates on is test data."""
    changes: dict[str, Any] = field(default_factory=dict)
    """What every trial has different from it, by dotted key: {training.steps: 120}."""
    space: dict[str, Any] = field(default_factory=dict)
    """What is varied, by dotted key: a list of values, or for random search {low, high} with log or integer: true."""
    method: Literal["grid", "random", "halving"] = "grid"
    """Every combination; so many drawn at random; or successive halving of those, first on fewer training steps."""
    trials: int = 16
    """Trials that random search and halving draw."""
    rungs: tuple[float, ...] = (0.5, 1.0)
    """Halving: shares of training.steps, ascending, the last one 1; trials are trained anew on each."""
    keep: float = 0.34
    """Halving: share of the trials that go on to the next rung."""
    seeds: tuple[int, ...] = (0,)
    """Each trial is trained with each; its metrics are the means. best.yaml has the first."""
    attacks: list[str] = field(default_factory=lambda: ["direct", "prefill"])
    """Attacks on base and rerouted model, as in `rerouting attack`."""
    attack_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Their options."""
    cases: dict[str, int | None] = field(default_factory=dict)
    """Behaviours by attack; the budget's number unless given."""
    budget: Literal["quick", "standard", "paper"] = "quick"
    """How much an attack may spend."""
    judges: list[str] = field(default_factory=lambda: ["local", "refusal_words", "broken"])
    """The first decides the rates."""
    sources: list[SourceConfig] = field(default_factory=lambda: [_bundled("harmful")])
    """Harmful validation behaviours; HarmBench's: {name: harmbench, options: {path: harmbench_behaviors_val.csv}}."""
    measures: list[str] = field(default_factory=lambda: ["intrinsic", "over_refusal"])
    """What is kept, as in `rerouting evaluate`; on sources of their options alone."""
    measure_options: dict[str, dict[str, Any]] = field(default_factory=_validation)
    """Their options, with validation data."""
    max_new_tokens: int = 64
    """Length at which every answer is cut."""
    objective: str = "minimise attacks.mean.rerouted.asr"
    """minimise or maximise, and a metric (see trials.jsonl for their names)."""
    constraints: list[str] = field(
        default_factory=lambda: [
            "intrinsic.nll.difference <= 0.02",
            "over_refusal.complied[borderline].difference >= -0.02",
        ]
    )
    """What a trial must keep: METRIC <= NUMBER or METRIC >= NUMBER."""
    against: str = "intrinsic.kl.rerouted"
    """Metric of the Pareto plot's other axis, of which less is better; "" for no plot and no front."""
    models: Literal["none", "best", "all"] = "none"
    """Merged models kept of finished trials; adapters always are. With "best", losers' go when the selection ends."""
