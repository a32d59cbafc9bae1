"""Liger's Triton kernels (extra `kernels`), where they are installed and the device is CUDA: gates and rotary embeddings.

Of a training step at Llama-3-8B's size they save a fifteenth, and take a second to build (docs/performance.md).
Everything here is None without them, and callers go on with what they have.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

Rotate = Callable[..., tuple[Tensor, Tensor]]


@lru_cache(maxsize=1)
def installed() -> bool:
    """Whether there is a CUDA device and a Liger to run on it."""
    return torch.cuda.is_available() and find_spec("liger_kernel") is not None


def silu_gate(act: Any) -> Callable[[Tensor, Tensor], Tensor] | None:
    """silu(gate) · up, which keeps these two alone and writes their gradients in their place."""
    if not installed() or (not isinstance(act, nn.SiLU) and type(act).__name__ != "SiLUActivation"):
        return None
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    apply: Callable[[Tensor, Tensor], Tensor] = LigerSiLUMulFunction.apply
    return apply


def rotary() -> Rotate | None:
    """Queries (B, H, T, D) and keys turned by `cos` and `sin` (B or 1, T, D), in place."""
    if not installed():
        return None
    from liger_kernel.ops.rope import LigerRopeFunction

    def rotate(
        query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        turned: tuple[Tensor, Tensor] = LigerRopeFunction.apply(query, key, cos, sin, None, unsqueeze_dim)
        return turned

    return rotate
