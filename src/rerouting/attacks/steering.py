"""A steering vector is learned that makes harmful targets likely, and added to the residual stream.

Source: gradient-optimised steering vectors, Dunefsky & Cohan 2025, arXiv 2502.18862, and Cao et al. 2024, arXiv
2406.00045: one vector at one layer, added at every position, that maximises the likelihood of wanted continuations,
within a norm. Deviations: learned on the package's own harmful training prompts and their affirmative targets, many
instead of one, and only promoting (no suppressed continuations, no preference pairs); Adam with a projection onto
the ball after each step; the norm is a share of the layer's mean state norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.records import Chat
from rerouting.data.sources.bundled import Bundled
from rerouting.models.layers import decoder_blocks
from rerouting.models.memory import in_batches
from rerouting.models.steering_hooks import changed_layer, plus, resolved_layers
from rerouting.models.target_rows import finite
from rerouting.targets.directions import last_token_states
from rerouting.targets.target import Target
from rerouting.targets.target_loss import Pair, losses_of, target_pair


@dataclass(frozen=True)
class Steering:
    """White-box steering by a learned vector."""

    layer: float = 0.4
    """Where it is added: a share of the depth (below 1) or a layer."""
    norm: float = 0.5
    """Most that the vector's norm may be, as a share of the layer's mean state norm."""
    prompts: int = 128
    """Harmful training prompts that it is learned on."""
    steps: int = 40
    """Optimisation steps."""
    lr: float = 0.1
    """Adam's rate of each entry, as a share of the largest norm divided by the square root of the width."""
    batch: int = 8
    """Prompts in a step; taken in parts when memory runs out."""

    group: ClassVar[int] = 64
    tampers: ClassVar[bool] = True
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"steps": 20, "prompts": 64},
        "paper": {"steps": 200, "prompts": 256},
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 8, "standard": 40, "paper": None}

    def fit(self, target: Target, resources: Resources) -> dict[str, Tensor]:
        """The vector (D,), its layer, and the loss of each step's prompts (steps,).

        Raises:
            UserError: the layer is not the model's, or memory is too small for one prompt.
        """
        chats = [chat for chat in Bundled("harmful", "train").load() if chat.target][: self.prompts]
        pairs = [target_pair(chat, target.tokenizer) for chat in chats]
        (layer,) = resolved_layers([self.layer], len(decoder_blocks(target.model)))
        states = last_token_states(target.model, target.tokenizer, chats[:16])[:, layer]
        radius = self.norm * float(states.norm(dim=1).mean())
        vector = torch.zeros(states.shape[1], device=target.loaded.device, requires_grad=True)
        optimiser = torch.optim.Adam([vector], lr=self.lr * radius / len(vector) ** 0.5)
        draw = torch.Generator().manual_seed(resources.seed)
        losses, order = [], list[int]()
        for step in range(self.steps):
            if len(order) < self.batch:
                order += torch.randperm(len(pairs), generator=draw).tolist()
            chosen, order = order[: self.batch], order[self.batch :]
            losses.append(_step(target, layer, vector, [pairs[at] for at in chosen], optimiser))
            resources.progress(f"steering: step {step + 1} of {self.steps}, loss {losses[-1]:.2f}")
            with torch.no_grad():
                vector.mul_((radius / vector.norm().clamp_min(1e-12)).clamp_max(1.0))
        resources.progress(f"steering vector: loss {losses[0]:.2f} to {losses[-1]:.2f}")
        return {
            "vector": vector.detach().cpu(),
            "layer": torch.tensor(layer),
            "losses": torch.tensor(losses),
        }

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """The plain requests, answered by the steered model."""
        vector, layer = resources.fitted["vector"], int(resources.fitted["layer"])
        losses = resources.fitted["losses"]
        trace = {
            "layer": layer,
            "norm": round(float(vector.norm()), 3),
            "first_loss": finite(losses[0]),
            "last_loss": finite(losses[-1]),
        }
        attempts = [Attempt(chat, trace=trace) for chat in chats]
        with changed_layer(target.model, layer, partial(plus, vector)):
            answers = target.answer(attempts)
        return [attempt.answered(answer) for attempt, answer in zip(attempts, answers, strict=True)]


def _step(
    target: Target, layer: int, vector: Tensor, pairs: Sequence[Pair], optimiser: torch.optim.Optimizer
) -> float:
    """One step down the mean loss of some prompts; returns that loss in nats a token."""
    slopes: list[Tensor] = []

    def part(some: Sequence[Pair]) -> list[float]:
        with torch.enable_grad(), changed_layer(target.model, layer, partial(plus, vector)):
            losses = losses_of(target, some)
            slopes.append(torch.autograd.grad(losses.sum(), vector)[0])
        found: list[float] = losses.tolist()
        return found

    losses = in_batches(part, pairs, len(pairs))
    vector.grad = torch.stack(slopes).sum(dim=0) / len(pairs)
    optimiser.step()
    return sum(losses) / len(losses)
