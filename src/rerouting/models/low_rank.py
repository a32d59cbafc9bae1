"""LoRA's product with nothing kept and nothing copied that is not needed: W x + s·B A drop(x).

PEFT's own forward casts every input to the adapters' float32, multiplies by the scale and adds: three copies as
large as the activations for each linear layer. Here A and B are cast instead (they are small), the update is added
in place, the frozen weight gets no gradient, and dropout is drawn again from its seed in the backward pass. The
modules stay PEFT's: names, files and merging are unchanged. Same arithmetic in float32; in bfloat16 both round.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from rerouting.models.patching import forwards


@contextmanager
def lean_adapters(model: nn.Module) -> Iterator[int]:
    """Within this context PEFT's adapters on plain linear layers compute as described above; gives their number.

    Others (Conv1D, expert stacks, quantised layers) go on with PEFT's forward.
    """
    with forwards([module for module in model.modules() if _is_plain(module)], _Forward) as count:
        yield count


def _is_plain(module: Any) -> bool:
    return (
        type(module) is LoraLinear
        and type(module.base_layer) is nn.Linear
        and len(module.active_adapters) == 1
        and not module.lora_variant
        and module.lora_B[module.active_adapters[0]].bias is None
    )


class _Forward:
    """The forward of one adapted linear layer."""

    def __init__(self, module: Any) -> None:
        self.module = module
        (self.name,) = module.active_adapters

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        module, base = self.module, self.module.base_layer
        if module.disable_adapters or module.merged:
            return nn.functional.linear(x, base.weight, base.bias)
        down, up = module.lora_A[self.name].weight, module.lora_B[self.name].weight
        dropout = module.lora_dropout[self.name]
        rate = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
        options = (down, up, module.scaling[self.name], rate)
        product: Tensor = _LowRank.apply(x, base.weight, base.bias, *options)  # type: ignore[no-untyped-call]
        return product


class _LowRank(torch.autograd.Function):
    """y = W x + b + s·B A drop(x), with gradients of x, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
        rate: float,
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        dropout = _Dropout(rate, int(torch.randint(1 << 62, ())) if rate > 0 else 0)
        # cast in every pass: whether a matrix has changed cannot be asked (fused AdamW leaves its version as it was)
        cast_down, cast_up = down.to(x.dtype), up.to(x.dtype)
        inner = dropout.of(flat, dropout.kept(flat)) @ cast_down.t()
        scale = scale * dropout.gain
        y = nn.functional.linear(flat, weight, bias).addmm_(inner, cast_up.t(), alpha=scale)
        ctx.save_for_backward(x, weight, cast_down, cast_up, inner)
        ctx.formats = down.dtype, up.dtype
        ctx.scale, ctx.dropout = scale, dropout
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, inner = ctx.saved_tensors
        flat, g = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        d_inner = (g @ up).mul_(ctx.scale)
        d_up = (inner.t() @ g).t().to(ctx.formats[1]).mul_(ctx.scale)
        dropout, d_x = ctx.dropout, None
        kept = dropout.kept(flat)
        d_down = (d_inner.t() @ dropout.of(flat, kept)).to(ctx.formats[0])
        if ctx.needs_input_grad[0]:
            d_x = dropout.of(d_inner @ down, kept).addmm_(g, weight).view_as(x)
        return d_x, None, None, d_down, d_up, None, None


@dataclass(frozen=True)
class _Dropout:
    """One draw of dropout, which can be made again: its seed is a place in noise that is drawn once.

    torch draws a Bernoulli number at a time, and fills masked places one by one: on a CPU that takes as long as the
    matrix product that follows. Reading noise from another place each time costs nothing. The rate is met to 1/65,536.
    """

    rate: float
    seed: int

    @property
    def steps(self) -> int:
        """How many of the 65,536 values of a 16-bit number mean that an element is dropped."""
        return round(self.rate * (1 << 16))

    @property
    def gain(self) -> float:
        """What the elements that stay are multiplied by; it is left to the scale of the adapter."""
        return 1 / (1 - self.steps / (1 << 16))

    def kept(self, x: Tensor) -> Tensor | None:
        """Which elements of inputs like `x` (N, D) stay: integers of x's size (N, D), −1 or 0; None for all of them."""
        if self.steps == 0:
            return None
        size = max(_NOISE, 1 << (2 * x.numel()).bit_length())
        noise = _noise(size, self.steps, _BITS[x.element_size()], x.device)
        start = self.seed % (len(noise) - x.numel() + 1) // _ALIGNED * _ALIGNED
        return noise[start : start + x.numel()].view(x.shape)

    @staticmethod
    def of(x: Tensor, kept: Tensor | None) -> Tensor:
        """(N, D) with zeros where it is dropped."""
        return x if kept is None else (x.view(kept.dtype) & kept).view(x.dtype)


_NOISE = 1 << 22
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers of the size of a number, in bytes."""
_ALIGNED = 8
"""Numbers that a processor takes at a time: places begin at multiples."""


@lru_cache(maxsize=16)
def _noise(size: int, steps: int, kind: torch.dtype, device: torch.device) -> Tensor:
    """So many independent integers, 0 with probability steps/65,536 and else −1; always the same."""
    bits = torch.empty(-(-size // 4), dtype=torch.int64, device=device)
    bits.random_(-(1 << 63), None, generator=torch.Generator(device).manual_seed(0))
    return (bits.view(torch.int16) >= steps - (1 << 15)).to(kind).neg_()
