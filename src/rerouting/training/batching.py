"""Examples to tensors: packed without padding, or padded. The losses see selected real tokens only, in either case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from rerouting.data.formatting import Example
from rerouting.models.common_beginnings import Common
from rerouting.models.packing import Layout


@dataclass(frozen=True)
class Batch:
    """Sequences that pass through the model together.

    Attributes:
        input_ids: (B, T) int64, padded on the right; packed (1, N).
        attention_mask: 1 for real tokens, (B, T) int64; None when packed.
        selected: places of the n tokens that count for the loss in the flattened (B · T), int64 (n,); None for all.
        shares: what each of the n tokens is of its sequence's, so that a sequence's add up to 1, float32 (n,), on the
            host.
        tokens: n.
        layout: borders of the sequences when packed.
        media: pictures and what belongs to them; None for text alone.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    selected: Tensor | None
    shares: Tensor
    tokens: int
    layout: Layout | None = None
    media: dict[str, Tensor] | None = None

    @property
    def sequences(self) -> Tensor:
        """Number of the sequence of each of the n tokens, int64 (n,)."""
        rows, width = self.input_ids.shape
        lengths = torch.tensor(self.layout.lengths if self.layout else [width] * rows)
        each = torch.arange(len(lengths)).repeat_interleave(lengths).to(self.input_ids.device)
        if self.layout and self.layout.common:
            each = each[self.layout.common.first]
        return each if self.selected is None else each.index_select(0, self.selected)

    @property
    def common(self) -> int:
        """Tokens that need not run, since other sequences have them too."""
        return sum(self.layout.lengths) - self.input_ids.numel() if self.layout else 0

    def pick(self, states: Tensor) -> Tensor:
        """The selected tokens' states: (B, T, D) to (n, D)."""
        flat = states.flatten(0, 1)
        return flat if self.selected is None else flat.index_select(0, self.selected)


def collate(
    examples: Sequence[Example],
    pad_id: int,
    skip_first_token: bool = False,
    packed: bool = False,
    device: torch.device | str = "cpu",
    reader: Any = None,
    once: bool = False,
) -> Batch:
    """One batch of examples; `selected` are the tokens that count for the loss.

    Args:
        examples: longest first, when packed.
        pad_id: token that fills a padded batch.
        skip_first_token: the first of every sequence does not count.
        packed: one behind the other, instead of padded to the longest.
        device: where the tensors go; the borders of packed sequences are also kept on the host.
        reader: of the model's pictures; examples with pictures are padded, never packed.
        once: packed sequences' common beginnings run once, as far as they do not count for the loss.
    """
    images = [image for example in examples for image in example.images]
    packed = packed and not images
    width = max(len(example.ids) for example in examples)
    rows = [list(example.ids) for example in examples]
    masks = [_mask(example, skip_first_token) for example in examples]
    parts = [_parts(mask) for mask in masks]
    real = layout = None
    if packed:
        common = Common.of(rows, masks, device) if once else None
        layout = Layout.of([len(row) for row in rows], device, common)
        ids, parts = [[*chain.from_iterable(rows)]], [[*chain.from_iterable(parts)]]
        if common is not None:
            first = common.first.tolist()
            ids, parts = [[ids[0][at] for at in first]], [[parts[0][at] for at in first]]
    else:
        ids = [row + [pad_id] * (width - len(row)) for row in rows]
        parts = [part + [0.0] * (width - len(part)) for part in parts]
        real = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]).to(device)
    shares = torch.tensor(parts).flatten()
    selected = shares.nonzero().flatten()
    return Batch(
        torch.tensor(ids).to(device),
        real,
        None if len(selected) == len(shares) else selected.to(device),
        shares[selected],
        len(selected),
        layout,
        _media(rows, examples, images, width, device, reader) if images else None,
    )


def _media(
    rows: list[list[int]],
    examples: Sequence[Example],
    images: list[str],
    width: int,
    device: torch.device | str,
    reader: Any,
) -> dict[str, Tensor]:
    """Pictures and what belongs to them, on the device."""
    assert reader is not None, "examples with pictures need the model's image reader"
    found = reader.inputs(rows, [example.n_prompt for example in examples], images, width, left=False)
    return {name: item.to(device) for name, item in found.items()}


def counted(examples: Sequence[Example], skip_first_token: bool = False) -> tuple[int, int]:
    """How many of their tokens count for the loss, and how many sequences have one that does."""
    each = [sum(_mask(example, skip_first_token)) for example in examples]
    return sum(each), sum(map(bool, each))


def _mask(example: Example, skip_first_token: bool) -> list[bool]:
    return [flag and not (skip_first_token and at == 0) for at, flag in enumerate(example.mask)]


def _parts(mask: list[bool]) -> list[float]:
    """Of a sequence: what each token is of those that count, 0 for the others."""
    total = sum(mask) or 1
    return [flag / total for flag in mask]


def micro_batches(examples: Sequence[Example], size: int) -> list[list[Example]]:
    """Split one step's examples into groups of like length, so that little is padded."""
    ordered = sorted(examples, key=lambda example: len(example.ids), reverse=True)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
