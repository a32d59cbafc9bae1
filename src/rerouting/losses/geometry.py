"""The few formulas that losses and their logs share; all arithmetic in float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine along the last axis: (…, D), (…, D) -> (…), a zero vector giving 0."""
    return (normalize(first.float(), dim=-1) * normalize(second.float(), dim=-1)).sum(-1)


def angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle in radians along the last axis: (…, D), (…, D) -> (…).

    Kahan's form 2·atan2(‖u − v‖, ‖u + v‖) of unit vectors: exact near 0 and π, where acos has no gradient.
    """
    u, v = normalize(first.float(), dim=-1), normalize(second.float(), dim=-1)
    return 2 * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1))


def distance_to_direction(states: Tensor, direction: Tensor) -> Tensor:
    """L2 distance between unit-normalised states (L, N, D) and directions (L, 1, D) -> (L, N)."""
    unit = normalize(direction.to(states.device), dim=-1)
    distance: Tensor = (normalize(states.float(), dim=-1) - unit).norm(dim=-1)
    return distance


def between_sequences(states: Tensor, sequences: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """How a token's sequence stands to the others: the mean of `of(cosine)` between their mean states.

    Args:
        states: (L, N, D).
        sequences: number of the sequence that each token belongs to, (N,).
        of: of cosines, elementwise.

    Returns:
        (L, N), the same for all tokens of a sequence; 0 where there is no other.
    """
    states = states.float()
    numbers, place = sequences.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    if len(numbers) < 2:
        return states.new_zeros(states.shape[:-1])
    member = (sequences == numbers[:, None]).float()  # (S, N)
    unit = normalize(member @ states / member.sum(dim=1, keepdim=True), dim=-1)
    others = 1 - torch.eye(len(numbers), device=states.device)
    values = (of(unit @ unit.mT) * others).sum(dim=-1) / (len(numbers) - 1)  # (L, S)
    return values[:, place]
