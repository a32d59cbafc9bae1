"""Directions in the residual stream: read from harmful and harmless prompts, added or removed while a block runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from rerouting.core.records import Chat
from rerouting.data.formatting import render_prompt
from rerouting.models.layers import decoder_blocks


@torch.no_grad()
def last_token_states(model: Any, tokenizer: Any, chats: Sequence[Chat]) -> Tensor:
    """Hidden states of each rendered prompt's last token, (B, L + 1, D) float32; index 0 is the embedding."""
    device = next(model.parameters()).device
    rows = []
    for chat in chats:
        ids = torch.tensor([render_prompt(chat, tokenizer)], device=device)
        states = model(
            input_ids=ids, use_cache=False, output_hidden_states=True, logits_to_keep=1
        ).hidden_states
        rows.append(torch.stack([state[0, -1].float().cpu() for state in states]))
    return torch.stack(rows)


@contextmanager
def changed_outputs(model: Any, changes: Mapping[int, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Pass the outputs (B, T, D) of decoder blocks through functions while the block runs.

    Args:
        model: causal language model.
        changes: by block, counted from 0.
    """
    blocks = decoder_blocks(model).blocks
    with ExitStack() as stack:
        for block, change in changes.items():
            handle = blocks[block].register_forward_hook(_hook(change))
            stack.callback(handle.remove)
        yield


def _hook(change: Callable[[Tensor], Tensor]) -> Callable[[Any, Any, Any], Any]:
    def hook(module: Any, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    return hook
