"""Gated units that keep their two inputs alone: act(gate) is computed again in the backward pass.

A gated MLP keeps gate, act(gate), up and their product, each as wide as the MLP; the second is a cheap function of the
first. Same operations in the same order, so the same gradients to the bit. Found by structure: a module with
`gate_proj`, `up_proj`, `down_proj` and `act_fn`, as in Llama, Mistral, Qwen and Gemma; the rest is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rerouting.models.patching import forwards

_PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")


@contextmanager
def lean_gates(model: nn.Module) -> Iterator[int]:
    """Within this context gated MLPs keep less for the backward pass; gives their number."""
    with forwards([module for module in model.modules() if _is_gated(module)], _Forward) as count:
        yield count


@torch.no_grad()
def _is_gated(module: Any) -> bool:
    """Whether the module computes what it seems to: it is run once, on one token, to see."""
    width = getattr(getattr(module, "gate_proj", None), "in_features", None)
    if width is None or not all(hasattr(module, part) for part in _PARTS) or "forward" in vars(module):
        return False
    numbers = [item for item in module.parameters() if item.is_floating_point()]
    if not numbers:  # in 4 bits, without adapters: nothing here is trained
        return False
    x = torch.linspace(-1, 1, width).to(numbers[0])[None]
    modes = {part: part.training for part in module.modules()}
    module.eval()  # without dropout
    try:
        own = module(x)
        return isinstance(own, Tensor) and torch.equal(own, _Forward(module)(x))
    except (RuntimeError, TypeError):
        return False
    finally:
        for part, mode in modes.items():
            part.training = mode


class _Forward:
    """The forward of one gated MLP."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        """(…, D) to (…, D)."""
        module = self.module
        gated = _Gated.apply(module.gate_proj(x), module.up_proj(x), module.act_fn)  # type: ignore[no-untyped-call]
        out: Tensor = module.down_proj(gated)
        return out


class _Gated(torch.autograd.Function):
    """act(gate) · up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, act: nn.Module) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.act = act
        product: Tensor = act(gate) * up
        return product

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        with torch.enable_grad():
            own = gate.detach().requires_grad_()
            acted = ctx.act(own)
        d_up = grad * acted.detach()
        (d_gate,) = torch.autograd.grad(acted, own, grad * up)
        return d_gate, d_up, None
