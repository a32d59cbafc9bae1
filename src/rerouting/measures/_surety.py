"""How sure a model is of words that it wrote: by how much it prefers their tokens to any other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rerouting.core.records import Chat
from rerouting.data.formatting import render_prompt
from rerouting.targets.target import Target

Span = tuple[int, int]


@torch.inference_mode()
def surety(target: Target, chat: Chat, answer: str, spans: Sequence[Span]) -> float:
    """The smallest lead, in nats, that a token of the spans has over the next best one; below 0 where it is not first.

    Args:
        target: the model that wrote the answer.
        chat: the request.
        answer: its text, or its beginning.
        spans: pieces of the answer, (start, end) in characters; without any, or with a tokenizer that
            cannot tell where its tokens stand, every token counts.
    """
    tokenizer = target.tokenizer
    placed = tokenizer(
        answer, add_special_tokens=False, return_offsets_mapping=bool(spans) and tokenizer.is_fast
    )
    given = placed["input_ids"]
    if not given:
        return 0.0
    prompt = render_prompt(chat, tokenizer)
    device = next(target.model.parameters()).device
    output = target.model(
        torch.tensor([[*prompt, *given]], device=device), use_cache=False, logits_to_keep=len(given) + 1
    )
    logits = output.logits[0, :-1].float()
    own = torch.tensor(given, device=device)[:, None]
    lead = logits.gather(1, own)[:, 0] - logits.scatter(1, own, float("-inf")).max(dim=-1).values
    offsets = placed.get("offset_mapping")
    if offsets is not None:
        lead = lead[[any(a < end and b > start for start, end in spans) for a, b in offsets]]
    return float(lead.min())
