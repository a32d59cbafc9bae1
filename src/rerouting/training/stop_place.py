"""The place `stop`: the mean state before the end of turn, turned to where the blocks above it end the turn.

Ours. At the middle of the depth the mean state alone does not: harmful states of SmolLM2-135M moved onto it by hand at
layer 16 of 30 end the turn with probability 0.5 and write a line break with 0.2, so that a tripped model may write
nothing but line breaks. A few steps of gradient descent on the direction (the model stays as it is) find one a third of
a right angle away, where every state ends the turn, also one that has gone only half the way (docs/log.md, 2026-11-29).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rerouting.core.errors import UserError
from rerouting.core.progress import bar
from rerouting.data.formatting import Example
from rerouting.models.layers import block_of_layer
from rerouting.models.steering_hooks import changed_output
from rerouting.models.trunk import Trunk

MOST = 128
"""Examples that a place is found on, the stream's first without a picture."""
STEPS = 20
EXAMPLES = 4
"""Examples of each step."""
HALF_WAY = 0.5
"""Share of the way that states go at least; each example its own, up to all of it."""
RATE = 0.1
"""Adam's rate, as a share of the root mean square of a unit vector's components."""
TOKENS = 256
"""Tokens that are kept of an example, from its first selected one on."""


def stopping(
    trunk: Trunk,
    layers: Sequence[int],
    starts: Tensor,
    examples: Sequence[Example],
    end: int,
    seed: int = 0,
) -> tuple[Tensor, list[float]]:
    """Turn each layer's place towards where the end of turn follows, by gradient descent on its direction.

    States keep their length and go a random share of the way, at the tokens that the examples' masks select.

    Args:
        trunk: of the model, which is run as a whole; its weights are not changed.
        layers: L hidden layers, each at least 1.
        starts: (L, D), where to begin.
        examples: different ones, of the circuit-breaker stream.
        end: the token that ends a turn.
        seed: of the examples' order and the shares.

    Returns:
        The places, (L, D) float32 on the host, as long as `starts`; and by layer the mean probability of the end of
        turn behind states that have gone half the way, on some of these examples.

    Raises:
        UserError: every example has a picture.
    """
    rows = [_shortened(one) for one in examples if not one.images and any(one.mask)][:MOST]
    if not rows:
        raise UserError(
            "the place stop is found on text, and every circuit-breaker example has a picture",
            "add harmful text, or route to the place end from two thirds of the depth on: losses.reroute.options "
            "{place: end, within: 10}, losses.target_depths [0.7]",
        )
    found, chances = [], []
    with bar("measuring the place stop", STEPS * len(layers)) as progress:
        for layer, start in zip(layers, starts, strict=True):
            draw = random.Random(f"{seed}/stop")
            above = _Above(trunk.model, trunk.all_blocks[block_of_layer(layer)], end)
            place = start.detach().clone().requires_grad_()
            optimiser = torch.optim.Adam([place], lr=RATE * float(start.norm()) / math.sqrt(len(start)))
            for _ in range(STEPS):
                optimiser.zero_grad()
                for ids, mask in draw.sample(rows, min(EXAMPLES, len(rows))):
                    share = HALF_WAY + (1 - HALF_WAY) * draw.random()
                    loss = above.nats(place, ids, mask, share).mean()
                    loss.backward(inputs=[place])  # type: ignore[no-untyped-call]
                optimiser.step()
                progress.advance()
            turned = place.detach()
            found.append(turned * (start.norm() / turned.norm()))
            with torch.no_grad():
                nats = [above.nats(turned, ids, mask, HALF_WAY) for ids, mask in rows[: 2 * EXAMPLES]]
            chances.append(float(torch.cat(nats).neg().exp().mean()))
    return torch.stack(found), chances


def _shortened(example: Example) -> tuple[Sequence[int], Sequence[bool]]:
    until = example.mask.index(True) + TOKENS
    return example.ids[:until], example.mask[:until]


@dataclass(frozen=True)
class _Above:
    """What the model makes of states that are moved behind a block."""

    model: torch.nn.Module
    block: torch.nn.Module
    end: int

    def nats(self, place: Tensor, ids: Sequence[int], mask: Sequence[bool], share: float) -> Tensor:
        """Loss (n,) of the end of turn behind each of n selected tokens, whose states go that share of the way."""
        device = next(self.model.parameters()).device
        chosen = torch.tensor(mask, device=device)
        spots = chosen.nonzero()[:, 0]

        def towards(states: Tensor) -> Tensor:
            wide = states.float()
            moved = (1 - share) * normalize(wide, dim=-1) + share * normalize(place.to(device), dim=0)
            moved = normalize(moved, dim=-1) * wide.norm(dim=-1, keepdim=True)
            return torch.where(chosen[:, None], moved, wide).to(states.dtype)

        with changed_output(self.block, towards):
            row = torch.tensor([list(ids)], device=device)
            logits: Tensor = self.model(input_ids=row, use_cache=False, logits_to_keep=spots).logits[0]
        assert len(logits) == len(spots), "the family's forward pass knows logits_to_keep"
        return -logits.float().log_softmax(dim=-1)[:, self.end]
