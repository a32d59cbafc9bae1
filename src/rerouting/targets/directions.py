"""Directions in the residual stream: where they are read, and how much of a change to the stream does most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor

from rerouting.core.records import Chat
from rerouting.data.formatting import render_prompt
from rerouting.data.sources.bundled import Bundled
from rerouting.targets.target import Target
from rerouting.targets.target_loss import mean_loss, target_pair, whole_pair

Candidate = TypeVar("Candidate")


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


def most_compliant(
    target: Target,
    candidates: Sequence[Candidate],
    changed: Callable[[Candidate], AbstractContextManager[None]],
    validation: int,
    max_harm: float,
) -> Candidate:
    """The change under which harmful validation prompts' targets are likeliest, among those that leave the rest alone.

    Args:
        target: the model.
        candidates: what is chosen from.
        changed: the model is changed by a candidate within this context.
        validation: harmful and harmless prompts of the package.
        max_harm: most that a change may add to the mean loss of harmless prompts' tokens, in nats; if all add
            more, the one that adds least is chosen.
    """
    harmful = [chat for chat in Bundled("harmful", "validation").load() if chat.target][:validation]
    benign = Bundled("benign", "validation", validation).load()
    pairs = [target_pair(chat, target.tokenizer) for chat in harmful]
    plain = [whole_pair(chat, target.tokenizer) for chat in benign]
    before = mean_loss(target, plain)
    found = []
    for candidate in candidates:
        with changed(candidate):
            found.append((mean_loss(target, pairs), mean_loss(target, plain) - before))
    harmless = [at for at, (_, harm) in enumerate(found) if harm < max_harm]
    if not harmless:
        return candidates[min(range(len(found)), key=lambda at: found[at][1])]
    return candidates[min(harmless, key=lambda at: found[at][0])]
