"""What a causal language model would write next: how published classifiers give their verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rerouting.models.memory import in_batches


def shortened(text: str, tokenizer: Any, tokens: int) -> str:
    """The text's beginning without special tokens, as the published code of both classifiers cuts an answer.

    Args:
        text: an answer.
        tokenizer: the classifier's.
        tokens: how many stay; those that the tokenizer puts in front count.
    """
    return str(tokenizer.decode(tokenizer(text)["input_ids"][:tokens], skip_special_tokens=True))


def next_logits(model: Any, tokenizer: Any, prompts: Sequence[str], batch: int) -> list[Tensor]:
    """Logits (V,) float32 of the token after each prompt; batches halve when memory runs out.

    Padding stands on the right: left padding changes what some models answer.
    """
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    order = sorted(range(len(ids)), key=lambda at: -len(ids[at]))

    @torch.inference_mode()
    def call(rows: Sequence[list[int]]) -> list[Tensor]:
        width = len(rows[0])
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        ends = torch.tensor([len(row) - 1 for row in rows])
        kept, place = torch.unique(ends, return_inverse=True)
        inputs = {"input_ids": tokens, "attention_mask": mask, "logits_to_keep": kept}
        on_device = {name: value.to(model.device) for name, value in inputs.items()}
        logits = model(**on_device, use_cache=False).logits.float().cpu()
        return list(logits[torch.arange(len(rows)), place])

    found = dict(zip(order, in_batches(call, [ids[at] for at in order], batch), strict=True))
    return [found[at] for at in range(len(ids))]
