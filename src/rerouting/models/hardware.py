"""What this machine computes fast: device, number format, attention implementation."""

from __future__ import annotations

import os
import platform
import statistics
import time

import torch

from rerouting.core.errors import UserError
from rerouting.models.packing import register

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(wanted: str) -> torch.device:
    """Resolve a device name; `auto` is cuda when there is one (under `accelerate launch` the process's own), else cpu.

    Raises:
        UserError: no such device here.
    """
    if wanted == "auto":
        rank = os.environ.get("LOCAL_RANK", "")
        own = (
            f"cuda:{int(rank) % torch.cuda.device_count()}" if rank and torch.cuda.is_available() else "cuda"
        )
        return torch.device(own if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device {wanted!r} cannot be used: {reason}", "set model.device to auto or cpu"
        ) from error
    return device


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Resolve a number format; `auto` is bfloat16 where it is native, else float32."""
    if wanted != "auto":
        return DTYPES[wanted]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and cpu_has_bf16()
    return torch.bfloat16 if native else torch.float32


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware.

    oneDNN's own question (`_is_mkldnn_bf16_supported`) is whether it *can* run bfloat16: on x86 plain AVX-512
    is enough for a yes, and then it converts on the fly. So avx512_bf16 or AMX is asked for besides.
    Elsewhere (ARM) oneDNN's answer already means the native instructions.
    """
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() in {"x86_64", "amd64"}:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return True


def pick_attention(wanted: str, device: torch.device) -> str:
    """Resolve the attention implementation; `auto` is the one of `models.packing` that suits the device."""
    return register(device) if wanted == "auto" else wanted


LARGEST_PRODUCT = 8192
"""Rows of the largest matrix that the rate is measured with."""


def measured_rate(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """TFLOP/s of a square matrix product: the median of as many as fit into the time, at least five.

    The matrices grow until one product takes a fiftieth of the time, so that a fast device is kept busy.

    Args:
        device: where it is measured.
        dtype: number format of both factors.
        seconds: time to spend, about.
    """
    size = 128
    while True:
        left = torch.randn(size, size, device=device).to(dtype)
        right = torch.randn(size, size, device=device).to(dtype)
        _seconds_of(left, right, device)  # the first one also starts threads and picks kernels
        took = _seconds_of(left, right, device)
        if took >= seconds / 50 or size >= LARGEST_PRODUCT:
            break
        size *= 2
    count = max(5, int(seconds / max(took, 1e-6)))
    median = statistics.median(_seconds_of(left, right, device) for _ in range(min(count, 1000)))
    return 2 * size**3 / median / 1e12


def _seconds_of(left: torch.Tensor, right: torch.Tensor, device: torch.device) -> float:
    """How long one product takes, from an idle device to an idle device."""
    _wait(device)
    began = time.perf_counter()
    torch.mm(left, right)
    _wait(device)
    return max(time.perf_counter() - began, 1e-9)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
