"""Relative L2 distance, rounded off near zero: small moves of benign states cost little, larger ones as `relative`.

Ours. A distance has a slope at zero: whatever moves harmful and benign states together is held back by the full weight
of the retain loss from the first bit on, and where harm is hard to tell from what is harmless training stays where it
starts. Rounded off (the pseudo-Huber function of the relative distance r: the root of r² + k², less k), benign states
may follow a little way, and the difference between both is learned from there (docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rerouting.losses.retain.relative import Relative


@dataclass(frozen=True)
class Smooth(Relative):
    """Pseudo-Huber function of the relative distance."""

    knee: float = 0.02
    """Relative distance up to which the loss is about quadratic; above 0."""

    def __post_init__(self) -> None:
        if self.knee <= 0:
            raise ValueError(f"knee {self.knee} must be above 0")

    def __call__(self, adapted: Tensor, reference: Tensor) -> Tensor:
        """Shapes (L, N, D), (L, N, D) -> (L, N)."""
        relative = super().__call__(adapted, reference)
        return (relative.square() + self.knee**2).sqrt() - self.knee
