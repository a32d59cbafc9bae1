"""Soft tokens after the request, optimised by gradient descent (the paper's input embedding attack).

Source: Zou et al. 2024, arXiv 2406.04313: 20 embeddings initialised from the token "x", SGD for up to 500 steps on
the target's loss, rate 1e-4 (Mistral) or 1e-3 (Llama-3), stop at 0.05 or 0.01. The budget "paper" has Llama-3's
values; for Mistral set `lr` 1e-4 and `stop_below` 0.05. Deviations: outside of that budget the rate counts in
multiples of the embedding table's squared mean norm, which is how a gradient step scales (tables differ by orders
of magnitude; SmolLM2's has norm 3.2), and no soft token moves further than `max_step` in a step: plain SGD at any
constant rate either crawls or is thrown off by single steep steps on SmolLM2, and reached its stop on few behaviours
in 100 steps. The best step is used instead of the last; contextual behaviours keep their context, which the
authors' code loses; several behaviours are optimised at once, each with its own loss and stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.records import Chat
from rerouting.models.soft_prompt import Descent, Found, optimise, table_sample
from rerouting.targets.slots import soft_problem
from rerouting.targets.target import Target


@dataclass(frozen=True)
class Embedding:
    """White-box soft prompt."""

    tokens: int = 20
    """Soft tokens."""
    steps: int = 150
    """Most steps (the paper: 500)."""
    lr: float = 5.0
    """Learning rate, times the squared mean norm of the embedding table unless `absolute`."""
    absolute: bool = False
    """Take `lr` as it stands, as the paper does."""
    max_step: float | None = 0.05
    """Furthest that a soft token moves in a step, in mean norms of the table; null for plain SGD, as in the paper."""
    stop_below: float = 0.05
    """Loss in nats a token at which a behaviour's optimisation ends."""
    batch: int = 8
    """Behaviours optimised at once; halves when memory runs out."""

    group: ClassVar[int] = 16
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"steps": 50},
        "paper": {"steps": 500, "lr": 1e-3, "absolute": True, "max_step": None, "stop_below": 0.01},
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 8, "standard": 24, "paper": None}

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """One soft prompt a behaviour; its exact values are kept.

        Raises:
            UserError: a behaviour has no target.
        """
        mark = target.tokenizer(" x", add_special_tokens=False)["input_ids"][-1]
        problems = [soft_problem(chat, target.tokenizer, (mark,) * self.tokens) for chat in chats]
        norm = float(table_sample(target.model).norm(dim=1).mean())
        descent = Descent(lambda slope: self._update(slope, norm), self.steps, self.stop_below)
        found = optimise(target.model, problems, descent, self.batch, resources.progress)
        return [self._attempt(chat, one) for chat, one in zip(chats, found, strict=True)]

    def _update(self, slope: Tensor, norm: float) -> Tensor:
        """What is subtracted from soft tokens (S, D) with this gradient."""
        move = slope * (self.lr if self.absolute else self.lr * norm**2)
        if self.max_step is None:
            return move
        lengths = move.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        shortened: Tensor = move * (self.max_step * norm / lengths).clamp_max(1.0)
        return shortened

    def _attempt(self, chat: Chat, found: Found) -> Attempt:
        trace = found.trace | {"reached_stop": min(found.losses) < self.stop_below}
        return Attempt(chat, embeddings=found.best, trace=trace)
