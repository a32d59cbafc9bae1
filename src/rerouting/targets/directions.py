"""Where directions in the residual stream are read: the last token of harmful and harmless prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rerouting.core.records import Chat
from rerouting.data.formatting import render_prompt


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
