"""Soft tokens after the request, optimised by gradient descent (the paper's input embedding attack).

Source: Zou et al. 2024: 20 embeddings initialised from the token "x", SGD for up to 500 steps on the target's
loss, rate 1e-4 (Mistral) or 1e-3 (Llama-3), stop at 0.05 or 0.01. Deviations: the rate counts in multiples of the
embedding table's mean norm (`lr` times its square), since models' norms differ by orders of magnitude; the best
step is used instead of the last; contextual behaviours keep their context, which the authors' code loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.records import Chat
from rerouting.targets.slots import around_slot
from rerouting.targets.target import Target
from rerouting.targets.target_loss import target_ids, target_loss


@dataclass(frozen=True)
class Embedding:
    """White-box soft prompt."""

    tokens: int = 20
    """Soft tokens."""
    steps: int = 150
    """Most steps (the paper: 500)."""
    lr: float = 0.05
    """Learning rate, times the squared mean norm of the embedding table unless `absolute`."""
    absolute: bool = False
    """Take `lr` as it stands, as the paper does."""
    stop_below: float = 0.05
    """Loss in nats a token at which the optimisation ends."""

    group: ClassVar[int] = 1
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"steps": 50},
        "paper": {"steps": 500, "lr": 1e-3, "absolute": True, "stop_below": 0.01},
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 4, "standard": 24}

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """One soft prompt a behaviour; its exact values are kept.

        Raises:
            UserError: a behaviour has no target.
        """
        return [self._attack(target, chat) for chat in chats]

    def _attack(self, target: Target, chat: Chat) -> Attempt:
        table, device = target.model.get_input_embeddings(), target.loaded.device
        before, after = (
            table(torch.tensor(ids, device=device)).float() for ids in around_slot(chat, target.tokenizer)
        )
        wanted = torch.tensor(target_ids(chat, target.tokenizer), device=device)
        mark = target.tokenizer(" x", add_special_tokens=False)["input_ids"][-1]
        soft = (
            table(torch.full((self.tokens,), mark, device=device))
            .float()
            .detach()
            .clone()
            .requires_grad_(True)
        )
        norm = float(table.weight.float().norm(dim=1).mean())
        optimiser = torch.optim.SGD([soft], lr=self.lr if self.absolute else self.lr * norm**2)
        losses: list[float] = []
        best = soft.detach().clone()
        for _ in range(self.steps + 1):
            with torch.enable_grad():
                prompt = torch.cat([before, soft, after]).to(table.weight.dtype)
                loss = target_loss(target.model, prompt[None], wanted)[0]
            losses.append(float(loss.detach()))
            if losses[-1] <= min(losses):
                best = soft.detach().clone()
            if losses[-1] < self.stop_below or len(losses) > self.steps:
                break
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        trace = {
            "first_loss": round(losses[0], 4),
            "best_loss": round(min(losses), 4),
            "steps": len(losses) - 1,
            "reached_stop": losses[-1] < self.stop_below,
        }
        whole = torch.cat([before, best, after]).cpu()
        return Attempt(chat, embeddings=whole, trace=trace)
