"""A beginning that many prompts share (a system prompt, examples, a judge's instructions) is read once for all of them.

Its keys and values stand before the padding, which then lies between it and the rest of each prompt. Positions come
from the mask, so that nothing else changes; but a window is counted in places, padding included, and a bias by distance
may be: models with either read each prompt whole.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

WORTHWHILE = 0.05
"""Share of all prompts' tokens that must be saved."""
SHORTEST = 8
"""Tokens of a beginning that is worth a pass of its own."""
A_STEP = 16
"""Tokens that a CPU reads in the time in which it writes one of a small batch."""


@dataclass(frozen=True)
class Beginning:
    """What some prompts begin with; each has at least a token more.

    Attributes:
        tokens: its ids.
        rows: numbers of the prompts.
    """

    tokens: tuple[int, ...]
    rows: frozenset[int]


def common_beginning(prompts: Sequence[Sequence[int]], apart: float = 0) -> Beginning | None:
    """The beginning that saves most tokens, along the way that most prompts go; None where it saves little.

    Args:
        prompts: token ids of each.
        apart: tokens that it must save where not all prompts have it: the others take a batch of their own.
    """
    rows, length, read = list(range(len(prompts))), 0, sum(map(len, prompts))
    best, saved = None, WORTHWHILE * read
    while len(rows := [row for row in rows if len(prompts[row]) > length + 1]) > 1:
        token, _ = Counter(prompts[row][length] for row in rows).most_common(1)[0]
        rows = [row for row in rows if prompts[row][length] == token]
        length += 1
        saving = (len(rows) - 1) * length
        enough = length >= SHORTEST and (len(rows) == len(prompts) or saving >= apart)
        if enough and saving > saved:
            best, saved = Beginning(tuple(prompts[rows[0]][:length]), frozenset(rows)), saving
    return best


def goes_on(model: Any) -> bool:
    """Whether a model can go on with some rows of a batch, in another call, as if there had been one."""
    given = model.generation_config
    if given.use_cache is False or given.cache_implementation not in (None, "dynamic", "hybrid"):
        return False
    if given.min_new_tokens is not None or given.forced_eos_token_id is not None:  # both count by the call
        return False
    if not model._supports_default_dynamic_cache():
        return False
    # by exact type: hybrid layers are DynamicLayers with further states, which no selection of rows reaches
    return _layers(model) <= {DynamicLayer, DynamicSlidingWindowLayer}


def reads_ahead(model: Any) -> bool:
    """Whether it can have padding behind a beginning: attention without windows, positions that are given.

    Not while hooks look at what passes, or change it: they expect whole prompts.
    """
    inner = (module for module in model.modules() if module is not model)
    if any(module._forward_hooks or module._forward_pre_hooks for module in inner):
        return False
    given = "position_ids" in inspect.signature(model.forward).parameters
    return given and goes_on(model) and _layers(model) == {DynamicLayer}


def _layers(model: Any) -> set[type]:
    return {type(layer) for layer in DynamicCache(config=model.config.get_text_config(decoder=True)).layers}


def read_once(
    model: Any, beginning: Sequence[int], ids: Tensor, mask: Tensor, pad: int
) -> dict[str, Tensor | Cache]:
    """Inputs of prompts that begin alike, with the beginning read.

    Args:
        model: causal language model for which `reads_ahead` holds.
        beginning: P tokens.
        ids: prompts padded on the left, (B, T); each longer than the beginning.
        mask: 1 for their real tokens, (B, T).
        pad: the padding token.

    Returns:
        `input_ids` and `attention_mask` (B, T), padded behind the beginning, and `past_key_values` of it.
    """
    first = torch.tensor(beginning, device=ids.device)
    kept = mask.cumsum(dim=1) > len(beginning)  # real tokens behind the beginning
    mask = kept.to(mask.dtype)
    ids = ids.masked_fill(~kept, pad)
    ids[:, : len(first)], mask[:, : len(first)] = first, 1
    cache = model(input_ids=first[None], use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(len(ids))
    return {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
