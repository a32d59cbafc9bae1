"""Scores of given responses without padding: sequences one behind the other, what they begin with in common once.

Two answers to one request share all of it, all requests share a system prompt, so that base and rerouted answers cost
little more than one of them. A family is tried before it is relied on: packed and padded scores have to agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rerouting.models.common_beginnings import Common
from rerouting.models.memory import is_out_of_memory
from rerouting.models.packing import GROUPED, VARLEN, Layout, branching

Sequences = Sequence[tuple[Sequence[int], int]]
"""Token ids of prompt and response, and how many of them are the prompt's, at least 1."""
ROWS = 256
"""Positions whose logits are turned to float32 at once."""
_packs: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def packs(model: Any, sequences: Sequences, padded: Callable[[Any, Sequences], list[Tensor]]) -> bool:
    """Whether packed scores of this model are its padded ones, but for rounding; found out once a model.

    Args:
        model: causal language model.
        sequences: what is to be scored; the model is tried on their tokens.
        padded: scores sequences the other way.
    """
    if getattr(model.config, "_attn_implementation", None) not in (GROUPED, VARLEN):
        return False
    if model not in _packs:
        some = branching(chain.from_iterable(ids for ids, _ in sequences))
        if not some:
            return False
        _packs[model] = _agrees(model, [(row, 1) for row in some], padded)
    return _packs[model]


def _agrees(model: Any, some: Sequences, padded: Callable[[Any, Sequences], list[Tensor]]) -> bool:
    """No token of any sequence may differ by more than rounding does: what leaks is seen right behind a border."""
    try:
        found = packed_nll(model, some)
    except (TypeError, RuntimeError, ValueError) as error:
        if is_out_of_memory(error):  # says nothing about the family
            raise
        return False
    median, most = (1e-3, 1e-2) if next(model.parameters()).dtype is torch.float32 else (0.1, 1.0)
    gaps = [(ours - theirs).abs() for ours, theirs in zip(found, padded(model, some), strict=True)]
    return all(bool(gap.median() <= median) and bool(gap.max() <= most) for gap in gaps)


@torch.no_grad()
def packed_nll(model: Any, sequences: Sequences, ends: Sequence[int] = ()) -> list[Tensor]:
    """Score responses in one forward pass, as `scoring.response_nll` does.

    Args:
        model: causal language model whose attention is packing's.
        sequences: at least one, text alone.
        ends: tokens any of which a last token stands for that is one of them.

    Returns:
        One float32 tensor (T,) per sequence, nats for each of its T response tokens.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index][0]))
    rows = [list(sequences[index][0]) for index in order]
    common = Common.of(rows, [[False] * len(row) for row in rows], device)
    layout = Layout.of([len(row) for row in rows], device, common)
    ids = torch.tensor([token for row in rows for token in row], device=device)
    starts = layout.offsets.tolist()
    places = [
        range(start + sequences[index][1], end)
        for index, start, end in zip(order, starts, starts[1:], strict=False)
    ]
    targets = torch.tensor([place for span in places for place in span], dtype=torch.long, device=device)
    if not len(targets):
        return [torch.empty(0) for _ in sequences]
    before = targets - 1  # the tokens that say what comes next
    if common is not None:
        before = common.sources[before]
    kept, where = torch.unique(before, return_inverse=True)
    logits = model(
        input_ids=(ids if common is None else ids[common.first])[None],
        logits_to_keep=kept,
        **layout.inputs(device),
    ).logits[0]
    whole = torch.cat([part.float().logsumexp(dim=1) for part in logits.split(ROWS)])
    scores = whole[where] - logits[where, ids[targets]].float()
    counts = [len(span) for span in places]
    found: dict[int, Tensor] = {}
    for index, own, said in zip(order, scores.split(counts), where.split(counts), strict=True):
        if len(own) and int(sequences[index][0][-1]) in ends:
            own[-1] = whole[said[-1]] - logits[said[-1], list(ends)].float().logsumexp(dim=0)
        found[index] = own.cpu()
    return [found[index] for index in range(len(sequences))]
