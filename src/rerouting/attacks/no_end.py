"""The answer begins with an affirmative opening, and may not end: the tokens that end a turn are banned.

Ours, against circuit breakers that route to the end of the turn (future work in Zou et al. 2024): who decodes, or has
an interface with logit biases, takes the way out away. Does the model then go on with what was asked, or babble?
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rerouting.attacks.prefill import Prefill
from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.records import Chat
from rerouting.data.template import closing_ids
from rerouting.models.generation import end_tokens
from rerouting.models.layers import unwrapped
from rerouting.targets.target import Target


@dataclass(frozen=True)
class NoEnd:
    """White-box or by logit biases; every answer has its full length, and a rate is a lower bound: what is forced on
    behind a whole answer is unlikely text, which `broken` may hold against it."""

    openings: list[str] = field(default_factory=lambda: ["{target}:\n\n"])
    """As in `prefill`."""

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """The prefilled requests, answered without an end.

        Raises:
            UserError: as `prefill`.
        """
        attempts = Prefill(self.openings).prompts(chats)
        added = target.tokenizer.added_tokens_decoder.items()
        special = {number for number, token in added if token.special}
        tokens = sorted(end_tokens(target.model) | set(closing_ids(target.tokenizer)[-1:]) | special)
        with banned(target.model, tokens):
            answers = target.answer(attempts)
        return [attempt.answered(answer) for attempt, answer in zip(attempts, answers, strict=True)]


@contextmanager
def banned(model: Any, tokens: list[int]) -> Iterator[None]:
    """No logits for these tokens while the block runs."""

    def ban(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        logits: Tensor = output.logits
        known = [token for token in tokens if token < logits.shape[-1]]
        output.logits = logits.index_fill(-1, torch.tensor(known, device=logits.device), -math.inf)
        return output

    handle = unwrapped(model).register_forward_hook(ban)
    try:
        yield
    finally:
        handle.remove()
