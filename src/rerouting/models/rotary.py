"""Rotary embeddings in one kernel, for the families whose modelling file turns queries and keys by a function."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from rerouting.models.kernels import Rotate, rotary

_NAME = "apply_rotary_pos_emb"


@contextmanager
def lean_rotary(model: nn.Module) -> Iterator[int]:
    """Within this context the model's family rotates by `kernels.rotary`, where it is the same; gives the files."""
    rotate, device = rotary(), next(model.parameters()).device
    files = {sys.modules[type(module).__module__] for module in model.modules()} if rotate else set()
    own: dict[Any, Rotate] = {
        file: getattr(file, _NAME)
        for file in files
        if rotate and hasattr(file, _NAME) and _same(getattr(file, _NAME), rotate, device)
    }
    for file in own:
        setattr(file, _NAME, rotate)
    try:
        yield len(own)
    finally:
        for file, function in own.items():
            setattr(file, _NAME, function)


@torch.no_grad()
def _same(ours: Rotate, theirs: Rotate, device: torch.device) -> bool:
    """Whether both turn some heads alike; the kernel runs on CUDA alone."""
    if device.type != "cuda":
        return False
    draw = torch.Generator(device).manual_seed(0)
    query, key = (torch.randn(1, heads, 5, 16, generator=draw, device=device) for heads in (4, 2))
    angle = torch.rand(1, 5, 8, generator=draw, device=device).repeat(1, 1, 2)
    try:
        wanted = ours(query.clone(), key.clone(), angle.cos(), angle.sin())
        found = theirs(query.clone(), key.clone(), angle.cos(), angle.sin())
    except (RuntimeError, TypeError, ValueError):
        return False
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(wanted, found, strict=True))
