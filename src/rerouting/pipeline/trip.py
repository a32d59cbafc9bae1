"""Where the breaker trips: the token from which the rerouted model's states stay away from the base's."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

HOLD = 3
"""Tokens in a row that make a trip; fewer do where the answer ends among them."""


class TripWatch:
    """Finds the trip while an answer is written."""

    def __init__(self, below: float, hold: int = HOLD) -> None:
        """Start before the first token.

        Args:
            below: cosine under which a state counts as rerouted.
            hold: tokens in a row that make a trip.
        """
        self._below, self._hold = below, hold
        self._seen = self._low = 0
        self.at: int | None = None

    def see(self, cosine: float | None, last: bool = False) -> bool:
        """Look at the next token.

        Args:
            cosine: of its states; None, which breaks a row, where there is none.
            last: the answer ends with it.

        Returns:
            Whether the trip is known now and was not before: it is at token `at`, counted from 1.
        """
        self._seen += 1
        self._low = self._low + 1 if cosine is not None and cosine < self._below else 0
        if self.at is not None or not (self._low >= self._hold or (last and self._low)):
            return False
        self.at = self._seen - self._low + 1
        return True


def lowest_cosine(base: Tensor, rerouted: Tensor) -> float | None:
    """Between the hidden states (L, D) of one token, at the layer where they are furthest apart."""
    if not len(base):
        return None
    return finite(float(cosine_similarity(base, rerouted.to(base.device), dim=-1).min().clamp(-1, 1)))


def divergence(base: Tensor, rerouted: Tensor) -> float | None:
    """Kullback-Leibler divergence of the next token, from base to rerouted, in nats, of logits (V,)."""
    return divergences(base[None], rerouted[None])[0]


def divergences(base: Tensor, rerouted: Tensor) -> list[float | None]:
    """That of each of T tokens, of logits (T, V)."""
    own, new = base.log_softmax(-1), rerouted.to(base.device).log_softmax(-1)
    terms = torch.where(own.exp() > 0, own.exp() * (own - new), 0.0)
    return [finite(max(0.0, one)) for one in terms.sum(-1).tolist()]


def away(cosine: float | None) -> float:
    """How far apart two states are, for a picture: 0 up to 10 degrees, 1 from 60 on; 0 where there is no cosine."""
    if cosine is None:
        return 0.0
    degrees = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
    return max(0.0, min(1.0, (degrees - 10) / 50))


def finite(value: float) -> float | None:
    """The number, or None where it is none (broken weights, a vocabulary padded with −inf)."""
    return value if math.isfinite(value) else None
