"""A reading vector: the difference between the mean states of harmful and harmless tokens, compared by cosine.

Source: Zou et al. 2023 (Representation Engineering, arXiv 2310.01405), difference of means in place of the first
principal component. The score is the cosine between the vector and a state, measured from the midpoint of both means:
nothing is fitted but two means, and it needs no penalty.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rerouting.probes.head import Head


@dataclass(frozen=True)
class Reading:
    """A direction."""

    def fit(self, harmful: Tensor, harmless: Tensor, seed: int = 0) -> Head:
        """From tokens' states, (P, D) and (N, D), float32; nothing is drawn."""
        first, second = harmful.mean(dim=0), harmless.mean(dim=0)
        direction = first - second
        return Head(
            {"direction": direction / direction.norm().clamp_min(1e-12), "centre": (first + second) / 2}
        )
