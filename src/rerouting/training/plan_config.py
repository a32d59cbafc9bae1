"""Options of `rerouting plan` besides the run's own. Imports nothing heavy: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["ddp", "fsdp2"]


@dataclass
class PlanConfig:
    """What is assumed of data and machine."""

    run: str | None = None
    """Run directory whose streams/*.jsonl give the true sequence lengths (lengths alone: add --config RUN/config.yaml
    for its configuration)."""
    tokens_per_step: float | None = None
    """Real tokens of one step, both streams together; null: from --run, else assumed (the output says how)."""
    longest: int | None = None
    """Tokens of the longest sequence, for which memory is estimated; null: from --run, else the limits in data."""
    shape: Literal["llama-3-8b", "mistral-7b"] | None = None
    """A built-in published shape in place of the model's own config; without it one is taken for the paper's two
    models when the hub does not give their config."""
    devices: int = 1
    """Devices that share the sequences of a step."""
    strategy: Strategy = "ddp"
    """What they share besides: ddp nothing, fsdp2 the frozen weights of the decoder blocks."""
    rate: float | None = None
    """Matrix products of one device, TFLOP/s in the model's dtype; null: measured here, in about a second."""
    efficiency: float = 0.6
    """Share of that rate that a training step reaches. The default is an assumption: replace it by
    tflop.total / (devices * time.rate * seconds a step) of a run of yours (--json prints the first two)."""
