"""How likely a target continuation is: its loss for soft or hard prompts of one length, differentiable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rerouting.core.errors import UserError
from rerouting.core.records import Chat


def target_ids(chat: Chat, tokenizer: Any) -> list[int]:
    """Tokens of the behaviour's affirmative target.

    Raises:
        UserError: it has none.
    """
    if not chat.target:
        raise UserError(
            f"{chat.id} has no target to optimise for", "give every behaviour an affirmative target"
        )
    return list(tokenizer(chat.target, add_special_tokens=False)["input_ids"])


def target_loss(model: Any, prompts: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of the target after each prompt, in nats a token.

    Args:
        model: causal language model.
        prompts: input embeddings (B, T, D), all of one length.
        target: token ids (S,).

    Returns:
        Losses (B,), float32.
    """
    table = model.get_input_embeddings()
    tail = table(target[:-1]).to(prompts.dtype).expand(len(prompts), -1, -1)
    logits = model(
        inputs_embeds=torch.cat([prompts, tail], dim=1), use_cache=False, logits_to_keep=len(target)
    ).logits
    labels = target.expand(len(prompts), -1)
    losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
    return losses.mean(dim=1)
