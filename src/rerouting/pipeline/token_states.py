"""Hidden states of single response tokens, as probes read them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rerouting.core.progress import bar
from rerouting.data.formatting import Example
from rerouting.models.trunk import Key, Trunk
from rerouting.training.batching import collate, micro_batches


@torch.inference_mode()
def token_states(
    trunk: Trunk,
    examples: Sequence[Example],
    layers: Sequence[int],
    *,
    pad_id: int,
    skip: int,
    tokens: int | None,
    size: int = 8,
    what: str = "",
) -> tuple[dict[int, Tensor], Tensor]:
    """States of each example's response tokens by layer.

    Args:
        trunk: at least as many blocks as the highest layer.
        examples: answered chats.
        layers: hidden layers.
        pad_id: token that fills a batch.
        skip: tokens at the start of each response that are passed over.
        tokens: taken of each response, spread evenly; None for all.
        size: examples in one forward pass.
        what: label of the progress bar.

    Returns:
        By layer (n, D) float32 on the host, and the number of the example of each token, (n,).
    """
    device = next(trunk.parameters()).device
    order = {id(example): at for at, example in enumerate(examples)}
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    owners: list[int] = []
    with bar(what, len(examples)) as progress:
        for group in micro_batches(examples, size):
            batch = collate(group, pad_id, device=device, reader=trunk.reader)
            taken = [_spread(example, skip, tokens) for example in group]
            rows = torch.tensor([row for row, places in enumerate(taken) for _ in places], dtype=torch.long)
            columns = torch.tensor([place for places in taken for place in places], dtype=torch.long)
            owners += [
                order[id(example)] for example, places in zip(group, taken, strict=True) for _ in places
            ]

            def keep(key: Key, state: Tensor, rows: Tensor = rows, columns: Tensor = columns) -> None:
                assert isinstance(key, int)
                found[key].append(state[rows.to(state.device), columns.to(state.device)].float().cpu())

            trunk(batch.input_ids, batch.attention_mask, layers, seen=keep, media=batch.media)
            progress.advance(len(group))
    return {layer: torch.cat(states) for layer, states in found.items()}, torch.tensor(owners)


def _spread(example: Example, skip: int, tokens: int | None) -> list[int]:
    places = list(range(example.n_prompt + skip, len(example.ids)))
    if tokens is None or len(places) <= tokens:
        return places
    return [places[round(at * (len(places) - 1) / max(tokens - 1, 1))] for at in range(tokens)]
