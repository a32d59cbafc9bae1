"""Options of `rerouting probe`. Imports nothing heavy: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rerouting.data.config import SourceConfig


def _harmless() -> list[SourceConfig]:
    return [
        SourceConfig("bundled", {"kind": "benign", "split": "validation"}),
        SourceConfig("bundled", {"kind": "borderline", "split": "validation"}),
    ]


@dataclass
class ProbeConfig:
    """How harmfulness probes are trained on a run's data, and by what their threshold is set."""

    kinds: list[str] = field(default_factory=lambda: ["linear", "mlp", "reading"])
    """Files in probes/kinds/, or path/to/mine.py:Name."""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options by kind: {linear: {c: 0.01}}."""
    layer: int | None = None
    """Hidden layer that is read; null: the one that tells held-out answers of the run's streams apart best."""
    skip: int = 4
    """Tokens at the start of a response that are passed over (the authors' number)."""
    texts: int = 1200
    """Different answers taken of each stream, at most (the authors' MLP: 1,200 harmful ones)."""
    tokens: int = 24
    """Tokens taken of each answer, spread evenly over it."""
    held_out: float = 0.2
    """Share of the answers that no probe is trained on, to compare layers by."""
    false_positives: float = 0.01
    """Share of harmless answers that the threshold may flag."""
    harmless: list[SourceConfig] = field(default_factory=_harmless)
    """Requests whose answers, the base's own, set the threshold; neither trained nor evaluated on."""
    max_new_tokens: int = 128
    """Length at which these answers are cut."""
    seed: int = 0
    """Chooses answers and initial weights."""
