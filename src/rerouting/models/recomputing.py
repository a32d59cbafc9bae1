"""Memory against time in a backward pass: blocks computed anew, or what they keep moved to the host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rerouting.models.patching import forwards


@contextmanager
def recomputed(blocks: nn.ModuleList) -> Iterator[None]:
    """Within this context a block keeps its input alone, and runs again in the backward pass (any family)."""
    with forwards(blocks, lambda block: partial(checkpoint, block.forward, use_reentrant=False)):
        yield


@contextmanager
def offloaded(device: torch.device) -> Iterator[None]:
    """Within this context what the backward pass needs waits in the host's memory."""
    with torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda"):
        yield
