"""How likely wanted continuations are after their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rerouting.core.errors import UserError
from rerouting.core.prompts import Prompt, images_of
from rerouting.core.records import Chat
from rerouting.data.formatting import render_prompt
from rerouting.models.memory import in_batches
from rerouting.models.target_rows import target_rows
from rerouting.targets.target import Target

Pair = tuple[list[int], list[int]]
"""Token ids of a prompt, and those wanted after it."""


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


def target_pair(chat: Chat, tokenizer: Any) -> Pair:
    """The rendered prompt and the behaviour's target.

    Raises:
        UserError: it has none.
    """
    return render_prompt(chat, tokenizer), target_ids(chat, tokenizer)


def whole_pair(chat: Chat, tokenizer: Any) -> Pair:
    """The rendered prompt, every token of which is to be predicted from those before it."""
    ids = render_prompt(chat, tokenizer)
    return Prompt(ids[:1], images_of(ids)), ids[1:]


def losses_of(target: Target, pairs: Sequence[Pair]) -> Tensor:
    """Mean cross-entropy of what is wanted after each prompt, in nats a token, float32 (B,); differentiable."""
    prompts, wanted = zip(*pairs, strict=True)
    rows = target_rows(prompts, wanted, target.loaded.device)
    return rows.losses(target.model, media=rows.media(target.model, prompts))


@torch.no_grad()
def mean_loss(target: Target, pairs: Sequence[Pair], batch: int = 16) -> float:
    """Mean of all pairs' losses; batches halve when memory runs out."""
    losses: list[float] = in_batches(lambda some: losses_of(target, some).tolist(), pairs, batch)
    return sum(losses) / len(losses)
