"""Nucleus sampling from one stream of numbers a prompt, so that a sample depends on seed and prompt alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

_NUCLEUS = 256
"""Likeliest tokens that are looked at first."""


class Sampler(LogitsProcessor):  # type: ignore[misc]
    """Nucleus sampling by inverse distribution function; leaves one token possible, so that greedy takes it."""

    def __init__(self, uniforms: Tensor, temperature: float, top_p: float) -> None:
        self.uniforms, self.temperature, self.top_p, self.step = uniforms, temperature, top_p, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Choose one token a row: scores (B, V) to scores (B, V) with all others at −inf."""
        uniform = self.uniforms[:, self.step : self.step + 1].to(scores.device)
        self.step += 1
        chosen = pick((scores.float() / self.temperature).softmax(dim=-1), uniform, self.top_p)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen, 0.0)


def pick(probabilities: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """The token at a given place of each row's nucleus.

    Args:
        probabilities: (B, V).
        uniform: place in the nucleus, in [0, 1), (B, 1).
        top_p: probability that the nucleus reaches; the token that crosses it belongs to it.

    Returns:
        Token ids (B, 1).
    """
    if top_p >= 1.0:
        total = probabilities.cumsum(dim=-1)
        place = torch.searchsorted(total, uniform * total[:, -1:], right=True)
        return place.clamp_max(probabilities.shape[1] - 1)
    best = probabilities.topk(min(_NUCLEUS, probabilities.shape[1]), dim=-1)
    chosen = _within(best.values, best.indices, uniform, top_p)
    wide = (best.values.sum(dim=-1) < top_p).nonzero()[:, 0]  # a flat distribution: the nucleus may be wider
    if len(wide):
        whole = probabilities[wide].sort(dim=-1, descending=True)  # of these rows alone: a sort takes long
        chosen[wide] = _within(whole.values, whole.indices, uniform[wide], top_p)
    return chosen


def _within(values: Tensor, tokens: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """As `pick`, from each row's likeliest tokens in order: (B, N) probabilities and token ids."""
    inside = (values.cumsum(dim=-1) - values) < top_p
    total = (values * inside).cumsum(dim=-1)
    place = torch.searchsorted(total, uniform * total[:, -1:], right=True)
    return tokens.gather(1, torch.minimum(place, inside.sum(dim=-1, keepdim=True) - 1))


def uniform_numbers(keys: Sequence[bytes], seed: int, steps: int) -> Tensor:
    """One uniform number a prompt and step, (B, steps), the same for the same prompt wherever it stands."""
    seen: Counter[bytes] = Counter()
    rows = []
    for key in keys:
        digest = hashlib.sha256(repr((seed, seen[key])).encode() + key).digest()
        seen[key] += 1
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        rows.append(torch.rand(steps, generator=generator))
    return torch.stack(rows) if rows else torch.empty(0, steps)
