"""Sequences one behind the other in a single row, without padding: attention stays within each.

Everything else in a decoder block works on single tokens, so only attention has to know the borders. They travel with
the forward call (`packed=`) down to the attention function. On CUDA that is torch's variable-length flash attention
with the borders given as a tensor, so that no layer waits for the device; elsewhere sequences of like length go
together, through torch's flash attention for CPUs or through products that skip what lies after their queries
(docs/performance.md). Not every family stops at the borders (ALiBi biases, recurrent states): `Trunk.packs` tries
before anything is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import accumulate, islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from rerouting.models.attention import grouped_attention
from rerouting.models.common_beginnings import Common
from rerouting.models.moved_rows import moved

VARLEN, GROUPED = "rerouting_varlen", "rerouting_grouped"
BLOCK = 256
"""Queries of a long sequence that are attended from at once."""
FLASH_FROM = 768
"""Length from which torch's flash attention for CPUs is faster in bfloat16 even with its backward pass, given AMX."""
SLACK = 40_000
"""Scores that may be computed in vain to save a product of its own: about what starting one costs on a CPU."""


LONGEST = 24
"""Tokens of the longest of the sequences that a family is tried on."""


def branching(tokens: Iterable[int]) -> list[list[int]]:
    """Four sequences of different lengths, two of which begin alike: what leaks over a border shows behind an ordinary
    token too, not just in a first one, whose state is a hundred times as long. None if there are too few tokens.
    """
    row = list(islice(tokens, LONGEST))
    return [] if len(row) < LONGEST else [row, [*row[:6], *row[:11:-1]], row[10:20], row[15:20]]


@dataclass(frozen=True)
class Layout:
    """Where sequences lie in the row.

    Attributes:
        lengths: tokens of each of the B sequences, all at least 1.
        positions: position of every token in its own sequence, (1, N).
        offsets: where each begins, and the end of the last, int32 (B + 1,).
        longest: the largest length.
        groups: numbers of neighbouring sequences that share a product where flash attention is not to be had.
        common: beginnings that run once, where the row has them once; lengths and offsets are of whole sequences.
    """

    lengths: tuple[int, ...]
    positions: Tensor
    offsets: Tensor
    longest: int
    groups: tuple[int, ...] = field(default=())
    common: Common | None = None

    @classmethod
    def of(
        cls, lengths: Sequence[int], device: torch.device | str = "cpu", common: Common | None = None
    ) -> Layout:
        """The layout of sequences in the given order; sort them by length, and fewer products are needed."""
        positions = torch.cat([torch.arange(length) for length in lengths]).to(device)
        return cls(
            tuple(lengths),
            (positions if common is None else positions[common.first])[None],
            torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device),
            max(lengths),
            tuple(_groups(lengths)),
            common,
        )

    def inputs(self, device: torch.device) -> dict[str, Any]:
        """What a model's forward call takes beside the ids."""
        # a mask of four dimensions is handed on as it is; packed attention does not look at it
        mask = torch.empty(1, 1, 0, 0, dtype=torch.bool, device=device)
        return {"attention_mask": mask, "position_ids": self.positions, "packed": self, "use_cache": False}

    def rows(self, states: Tensor) -> Tensor:
        """What attention sees: states of the row (1, H, N, D) at every place of whole sequences, (M, H, D)."""
        own = states[0].transpose(0, 1)
        return own if self.common is None else self.common.whole(own)

    def mixed(self, states: Tensor) -> Tensor:
        """What attention gives back: (M, H, D) to the row's (1, N, H, D)."""
        return (states if self.common is None else self.common.once(states))[None]


def register(device: torch.device) -> str:
    """Make both implementations known to transformers; returns the device's, for `attn_implementation`."""
    AttentionInterface.register(GROUPED, grouped)
    AttentionMaskInterface.register(GROUPED, eager_mask)
    AttentionInterface.register(VARLEN, varlen)
    # a mask that families with attention of their own can read too
    AttentionMaskInterface.register(VARLEN, eager_mask)
    return VARLEN if device.type == "cuda" else GROUPED


def grouped(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`grouped_attention`, within sequences where they are packed; shapes and options as there."""
    if packed is None:
        return grouped_attention(module, query, key, value, attention_mask, **kwargs)
    window = kwargs.pop("sliding_window", None)
    rows = [packed.rows(states) for states in (query, key, value)]
    mixed, first, start = [], 0, 0
    for count in packed.groups:
        lengths = packed.lengths[first : first + count]
        end = start + sum(lengths)
        places = _places(lengths, query.device)
        q, k, v = (places.padded(states[start:end]).transpose(1, 2) for states in rows)
        mixed.append(places.packed(_causal(module, q, k, v, window, kwargs)))
        first, start = first + count, end
    return packed.mixed(mixed[0] if len(mixed) == 1 else torch.cat(mixed)), None


def varlen(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Flash attention within packed sequences on CUDA; transformers' sdpa where nothing is packed."""
    special = kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None
    if packed is None:
        if special:
            return grouped_attention(module, query, key, value, attention_mask, **kwargs)
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return found
    flash = query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] <= 256
    if special or not flash:
        return grouped(module, query, key, value, None, packed, **kwargs)
    from torch.nn.attention.varlen import varlen_attn

    window = kwargs.get("sliding_window")
    mixed = varlen_attn(
        packed.rows(query),
        packed.rows(key),
        packed.rows(value),
        packed.offsets,
        packed.offsets,
        packed.longest,
        packed.longest,
        scale=kwargs.get("scaling"),
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(mixed, Tensor)
    return packed.mixed(mixed), None


def _causal(
    module: Any, query: Tensor, key: Tensor, value: Tensor, window: int | None, options: dict[str, Any]
) -> Tensor:
    """Attention of padded sequences (B, H, T, D) to what precedes, in blocks of queries: (B, T, H, D)."""
    length = query.shape[2]
    if window is not None and window >= length:  # hides nothing
        window = None
    if window is None and _flash_pays(query, value, module.training, options):
        scale = options.get("scaling")
        flash = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
        return flash.transpose(1, 2)
    attend: Any = grouped_attention
    if length > BLOCK and query.requires_grad:
        # the weights grow with the square: not kept, but computed again
        attend = partial(checkpoint, grouped_attention, use_reentrant=False, preserve_rng_state=False)
    mixed = []
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        first = 0 if window is None else max(0, start - window + 1)
        mask = _mask(start, end, first, window, query.dtype, query.device)
        mixed.append(
            attend(
                module, query[:, :, start:end], key[:, :, first:end], value[:, :, first:end], mask, **options
            )[0]
        )
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)


def _flash_pays(query: Tensor, value: Tensor, training: bool, options: dict[str, Any]) -> bool:
    """Whether torch's flash attention for CPUs can be used, and is faster: in float32, and mostly with AMX.

    In float32 forward and backward pass take 0.6 to 0.8 of the time of grouped products. In bfloat16 it works at the
    speed of float32 without AMX; with it the forward pass is 1.5 to 3.5 times as fast as grouped products, and the
    backward pass up to three times slower for short sequences (docs/performance.md).
    """
    plain = options.get("softcap") is None and options.get("s_aux") is None
    # with values of another width torch would take a way of its own that keeps all scores
    plain = plain and query.shape[-1] == value.shape[-1]
    dropout = training and options.get("dropout")
    if not plain or dropout or query.device.type != "cpu":
        return False
    if query.dtype is torch.bfloat16:
        return cpu_has_amx() and (not query.requires_grad or query.shape[2] >= FLASH_FROM)
    return query.dtype is torch.float32


@lru_cache(maxsize=1)
def cpu_has_amx() -> bool:
    """Whether this CPU multiplies tiles of bfloat16 (Intel's AMX)."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


@lru_cache(maxsize=64)
def _mask(
    start: int, end: int, first: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """What is added to the scores of queries start…end and keys first…end: (end − start, end − first)."""
    back = torch.arange(start, end)[:, None] - torch.arange(first, end)[None]
    hidden = (back < 0) if window is None else (back < 0) | (back >= window)
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf")).to(device)


@dataclass(frozen=True)
class _Places:
    """Where the tokens of some sequences go when they are padded to the longest, and where they come from.

    Attributes:
        count: sequences, B.
        longest: T.
        sources: for each of the B · T places the token in it, and the number of tokens where there is none.
        targets: for each token its place; None if all are equally long, and nothing need move.
    """

    count: int
    longest: int
    sources: Tensor
    targets: Tensor | None

    def padded(self, states: Tensor) -> Tensor:
        """(N, H, D) to (B, T, H, D), zeros where there is no token."""
        if self.targets is None:
            return states.reshape(self.count, self.longest, *states.shape[1:])
        return moved(states.flatten(1), self.sources, self.targets).view(
            self.count, self.longest, *states.shape[1:]
        )

    def packed(self, states: Tensor) -> Tensor:
        """(B, T, H, D) to (N, H, D)."""
        flat = states.flatten(0, 1)
        if self.targets is None:
            return flat
        return moved(flat.flatten(1), self.targets, self.sources).view(-1, *states.shape[2:])


@lru_cache(maxsize=512)
def _places(lengths: tuple[int, ...], device: torch.device) -> _Places:
    longest, total = max(lengths), sum(lengths)
    if min(lengths) == longest:
        return _Places(len(lengths), longest, torch.empty(0), None)
    starts = [0, *accumulate(lengths)]
    sources = torch.full((len(lengths), longest), total)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=False)):
        sources[row, :length] = torch.arange(start, start + length)
    targets = (sources.flatten() < total).nonzero().flatten()
    return _Places(len(lengths), longest, sources.flatten().to(device), targets.to(device))


def _groups(lengths: Sequence[int]) -> list[int]:
    """Neighbours that go together as long as padding them costs less than another product."""
    groups: list[list[int]] = []
    for length in lengths:
        if groups:
            joint = [*groups[-1], length]
            wasted = len(joint) * max(joint) ** 2 - sum(one * one for one in joint)
            if wasted <= SLACK * len(groups[-1]):
                groups[-1] = joint
                continue
        groups.append([length])
    return [len(group) for group in groups]
