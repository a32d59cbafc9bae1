"""What stays in memory: freed memory is kept for the next step and given back after a stage; kernels are few."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_KEEP = {-3: 32 << 20, -1: -1, -2: 64 << 20}
"""malloc.h: M_MMAP_THRESHOLD (bytes), M_TRIM_THRESHOLD (−1: the heap never shrinks), M_TOP_PAD (bytes)."""

KERNELS = 64
"""Shapes of matrix products whose kernels are kept: more than the passes of a block have, far fewer than 1,024."""


def keep_few_kernels() -> None:
    """Bound what is kept of matrix products' kernels on a CPU, unless the environment says how many.

    oneDNN compiles a kernel for every shape and keeps 1,024, and torch as many descriptions above it. Packed rows
    hardly ever have the same number of tokens twice, and attention to a growing cache never, so that in bfloat16 a
    training step left 50 MiB behind (docs/performance.md). Both read their limit with their first product, so what
    comes after it changes nothing.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS))


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next step, instead of giving it back; says whether it was told so.

    glibc returns the free end of its heap to the system, which hands it out again page by page: a training step on a
    CPU frees all its activations at once and can spend a fifth of its time so (docs/performance.md). Single tensors
    over 32 MiB, the largest threshold that glibc takes, are still returned where the heap has no room for them. It is
    told for the whole process, and not where the user tunes malloc (GLIBC_TUNABLES, MALLOC_…).
    """
    tuned = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    mallopt = None if tuned else _glibc("mallopt")
    return mallopt is not None and all(mallopt(name, size) == 1 for name, size in _KEEP.items())


def give_back_freed_memory() -> None:
    """Return what is free to the system at once, where the C library can be told so."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> Any:
    """A function of glibc's; None where the C library is another, or linked into Python."""
    try:
        here = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):  # no such question on this system
        here = False
    return getattr(ctypes.CDLL(None), name, None) if here else None
