"""How the models of a conversation answer. Imports nothing heavy: `--help` reads this file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rerouting.core.errors import UserError


@dataclass(frozen=True)
class Style:
    """How answers are written, and what counts as a trip."""

    max_new_tokens: int = 256
    """Length at which an answer is cut."""
    temperature: float = 0.0
    """Of the sampling; 0 takes the likeliest token."""
    seed: int = 0
    """Of the sampling of the first answer; every further one draws anew."""
    trip_below: float = 0.95
    """Cosine between base and rerouted hidden states under which a token counts as rerouted: read off a quickstart run
    (docs/chat.md), no calibrated detector."""

    def check(self) -> None:
        """Refuse what no answer can be made with.

        Raises:
            UserError: says which field.
        """
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}", "give at least 1")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature is {self.temperature}", "give 0 (greedy) or more")
        if not -1 <= self.trip_below <= 1:
            raise UserError(f"trip_below is {self.trip_below}", "give a cosine, from -1 to 1")
