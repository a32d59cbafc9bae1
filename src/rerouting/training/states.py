"""Mean states of examples at several layers, without gradient: what places and directions are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rerouting.core.progress import bar
from rerouting.data.formatting import Example
from rerouting.models.trunk import Key, Trunk
from rerouting.training.batching import Batch, collate, micro_batches


@torch.no_grad()
def mean_states(
    trunk: Trunk,
    examples: Sequence[Example],
    layers: Sequence[int],
    *,
    pad_id: int,
    size: int,
    what: str = "",
) -> tuple[Tensor, Tensor]:
    """Mean state of each example's tokens that its mask selects, by the model as it is.

    Args:
        trunk: at least as many blocks as the highest layer.
        examples: S of them, each with a token that is selected.
        layers: L hidden layers.
        pad_id: token that fills a batch.
        size: examples in one forward pass.
        what: label of the progress bar.

    Returns:
        Means (S, L, D) float32 and numbers of tokens (S,), on the host; the longest example first.
    """
    device = next(trunk.parameters()).device
    means, counts = [], []
    with bar(what, len(examples)) as progress:
        for group in micro_batches(examples, size):
            batch = collate(group, pad_id, device=device, reader=trunk.reader)
            pool = _Pool(batch, len(group))
            assert batch.attention_mask is not None
            trunk(batch.input_ids, batch.attention_mask, layers, seen=pool, media=batch.media)
            means.append(torch.stack([pool.means[layer] for layer in layers], dim=1))
            counts.append(pool.counts.cpu())
            progress.advance(len(group))
    return torch.cat(means), torch.cat(counts)


class _Pool:
    """Means over each sequence's selected tokens, taken as the pass goes up, so that no layer's states are kept."""

    def __init__(self, batch: Batch, sequences: int) -> None:
        self.batch, self.means = batch, dict[Key, Tensor]()
        owners = batch.sequences
        numbers = torch.arange(sequences, device=owners.device)
        self.member = (owners == numbers[:, None]).float()  # (B, n)
        self.counts = self.member.sum(dim=1)
        assert self.counts.min() > 0, "every example has a selected token"

    def __call__(self, key: Key, state: Tensor) -> None:
        mean = self.member @ self.batch.pick(state).float() / self.counts[:, None]
        self.means[key] = mean.cpu()
