"""Erase and separate: away from what a state was, and away from the mean state of retained answers (X-Boundary).

Source: Lu et al. 2025, "X-Boundary" (arXiv 2502.09990), as in the authors' code (github.com/AI45Lab/X-Boundary,
src/lorra_x_boundary.py, read at 1078a42): erase ReLU(cos(rep_cb, rep_M)) on harmful chats, separate
ReLU(cos(rep_cb, mean of rep_M over a boundary-safe answer)), both means over tokens. Their retain loss is `l2`, their
schedule α(1 − t/T), αt/T. Deviations:

- There, "separate" is taken on chats of their own, a harmless but alarming request with a *refusal*, away from the
  same request answered; here on the harmful chats themselves, which need no such pairs.
- There, the mean is of one paired answer and of unit states; here it is the place `retain`: one mean state
  of all retain answers, measured before training. To make it boundary-safe, give borderline sources weight.
- Each token has both terms, added with a weight; there each chat has one of them.

The second term has a slope at the start, where the first has none: an untrained state points towards the place too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor, relu

from rerouting.losses.geometry import cosine


@dataclass(frozen=True)
class Boundary:
    """Zero once a state is orthogonal to what it was and to the retained answers' mean."""

    places: ClassVar[tuple[str, ...]] = ("retain",)

    separate: float = 1.0
    """Weight of the second term beside the first."""

    def __call__(
        self, adapted: Tensor, reference: Tensor, generator: Generator, *, places: Mapping[str, Tensor]
    ) -> Tensor:
        """Shapes (L, N, D), (L, N, D), places (L, 1, D) -> (L, N)."""
        erased = relu(cosine(adapted, reference))
        return erased + self.separate * relu(cosine(adapted, places["retain"]))
