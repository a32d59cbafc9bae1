"""What must hold while a model is trained; each breach stops the run with the way out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rerouting.core.errors import UserError


def check_finite(step: int, **values: float) -> None:
    """Raise UserError when a loss or the gradient norm is NaN or infinite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise UserError(
                f"step {step}: {name.replace('_', ' ')} is {value}",
                "lower training.learning_rate, or set model.dtype to float32",
            )


WATCHED_STEPS = 5
"""Steps of a process within which every adapter must get a gradient."""


def check_gradients(step: int, silent: set[str] | None, now: list[str]) -> set[str]:
    """Raise UserError when an adapter got no gradient in any of the first steps of this process.

    Args:
        step: number, within this process, of the step whose backward passes are over: 1 to `WATCHED_STEPS`.
        silent: adapters without gradient in all steps before, None at the first.
        now: adapters without gradient in this step.

    Returns:
        Adapters that have had no gradient yet.
    """
    silent = set(now) if silent is None else silent & set(now)
    if silent and step == WATCHED_STEPS:
        raise UserError(
            f"{len(silent)} adapters got no gradient in {step} steps, the first is {min(silent)}",
            "lower lora.last_block to the highest block that a loss reaches, or check model.blocks",
        )
    return silent


def check_benign(row: Mapping[str, Any], limit: float) -> None:
    """Raise UserError when held-out benign loss (nats a token) has run away from the base model's.

    Args:
        row: a row of metrics.jsonl; without held-out measures nothing is checked.
        limit: rise that is allowed, nats a token.
    """
    if "benign_loss" not in row:
        return
    base, now = row["benign_loss_base"], row["benign_loss"]
    if not now - base <= limit:
        raise UserError(
            f"step {row['step']}: held-out benign loss rose from {base:.3f} to {now:.3f} nats a token, "
            f"more than the {limit} allowed by training.max_benign_rise (max_final_benign_rise at the end), with "
            "the whole adapter, whatever lora.strength keeps of it",
            "lower training.learning_rate, raise the retain coefficient, or widen the retain set",
        )
