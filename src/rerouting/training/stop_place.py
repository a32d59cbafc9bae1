"""The place `stop`: the mean state before the end of turn, turned until the blocks above it do end the turn.

Ours. At the middle of the depth the mean state alone does not: harmful states of SmolLM2-135M moved onto it by hand at
layer 16 of 30 end the turn with probability 0.5 and write a line break with 0.2, so that a tripped model may write
nothing but line breaks. A few steps of gradient descent on the direction (the model stays as it is) find one a third of
a right angle away, where every state ends the turn, also one that has gone only half the way (docs/log.md, 2026-11-29).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from rerouting.core.errors import UserError
from rerouting.core.progress import bar
from rerouting.data.formatting import Example
from rerouting.models.steering_hooks import changed_layer

STEPS = 20
EXAMPLES = 4
"""Examples of each step."""
HALF_WAY = 0.5
"""Share of the way that states go at least; each example its own, up to all of it."""
RATE = 0.1
"""Adam's rate, as a share of the root mean square of a unit vector's components."""
TOKENS = 256
"""Tokens that an example is cut to."""


def stopping(
    model: torch.nn.Module,
    layers: Sequence[int],
    starts: Tensor,
    examples: Sequence[Example],
    end: int,
    seed: int = 0,
) -> Tensor:
    """Turn each layer's place until states moved towards it end the turn.

    States keep their length and go a random share of the way, at the tokens that the examples' masks select.

    Args:
        model: causal language model; its weights are not changed.
        layers: L hidden layers, each at least 1.
        starts: (L, D), where to begin.
        examples: of the circuit-breaker stream.
        end: the token that ends a turn.
        seed: of the examples' order and the shares.

    Returns:
        (L, D) float32 on the host, as long as `starts`.

    Raises:
        UserError: no example has a selected token among its first `TOKENS`.
    """
    rows = [
        (one.ids[:TOKENS], one.mask[:TOKENS]) for one in examples if any(one.mask[:TOKENS]) and not one.images
    ]
    if not rows:
        raise UserError(
            f"no circuit-breaker example has a response within {TOKENS} tokens", "choose place: end"
        )
    found = []
    with bar("measuring the place stop", STEPS * len(layers)) as progress:
        for layer, start in zip(layers, starts, strict=True):
            draw = random.Random(f"{seed}/stop")
            place = start.detach().clone().requires_grad_()
            optimiser = torch.optim.Adam([place], lr=RATE * float(start.norm()) / math.sqrt(len(start)))
            for _ in range(STEPS):
                optimiser.zero_grad()
                for ids, mask in draw.sample(rows, min(EXAMPLES, len(rows))):
                    share = HALF_WAY + (1 - HALF_WAY) * draw.random()
                    _loss(model, layer, place, ids, mask, share, end).backward(inputs=[place])  # type: ignore[no-untyped-call]
                optimiser.step()
                progress.advance()
            turned = place.detach()
            found.append(turned * (start.norm() / turned.norm()))
    return torch.stack(found)


def _loss(
    model: torch.nn.Module,
    layer: int,
    place: Tensor,
    ids: Sequence[int],
    mask: Sequence[bool],
    share: float,
    end: int,
) -> Tensor:
    """Nats of the end of turn behind the selected tokens, whose states have gone that share of the way."""
    device = next(model.parameters()).device
    chosen = torch.tensor(mask, device=device)
    spots = chosen.nonzero()[:, 0]

    def towards(states: Tensor) -> Tensor:
        wide = states.float()
        moved = (1 - share) * normalize(wide, dim=-1) + share * normalize(place.to(device), dim=0)
        moved = normalize(moved, dim=-1) * wide.norm(dim=-1, keepdim=True)
        return torch.where(chosen[:, None], moved, wide).to(states.dtype)

    with changed_layer(model, layer, towards):
        logits = model(
            input_ids=torch.tensor([list(ids)], device=device), use_cache=False, logits_to_keep=spots
        ).logits[0]
    return cross_entropy(logits.float(), torch.full((len(spots),), end, device=device))
