"""Memory against time in a backward pass: blocks computed anew, or what they keep moved to the host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed(blocks: nn.ModuleList) -> Iterator[None]:
    """Within this context a block keeps its input alone, and runs again in the backward pass (any family)."""
    patched: list[Any] = list(blocks)
    for block in patched:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in patched:
            del block.forward


@contextmanager
def offloaded(device: torch.device) -> Iterator[None]:
    """Within this context what the backward pass needs waits in the host's memory."""
    with torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda"):
        yield
