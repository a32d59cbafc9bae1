"""Options of `rerouting evaluate`. Imports nothing heavy: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rerouting.models.config import ModelConfig


@dataclass
class KeptConfig:
    """What is measured of the models that circuit breakers were put into."""

    model: str = "runs/quickstart"
    """Run directory: its base and its rerouted model are compared. With `base`: any model with circuit breakers, by
    folder or hub name."""
    base: ModelConfig | None = None
    """What `model` was made from, when that is no run; device, dtype and the like hold for both."""
    measures: list[str] = field(default_factory=lambda: ["intrinsic", "over_refusal", "facts", "carry_over"])
    """Files in measures/, or path/to/mine.py:Name; "all" is every one that ships with the package, those that
    lack something (MT-Bench its questions) with the reason."""
    measure_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options by measure: {over_refusal: {sources: [{name: xstest, options: {path: …}}]}}."""
    assistant: str = "local"
    """Chat model that judges where a measure needs one: a file in targets/assistants/ ("local", "endpoint")."""
    assistant_options: dict[str, Any] = field(default_factory=dict)
    """Its options; the local one is the embedded model unless they say otherwise."""
    max_new_tokens: int = 128
    """Length at which an answer is cut."""
    seed: int = 0
    """Of everything random in the measures."""
