"""What the C library does with memory that is freed: kept for the next step, given back after a stage."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_KEEP = {-3: 32 << 20, -1: -1, -2: 64 << 20}
"""malloc.h: M_MMAP_THRESHOLD (bytes), M_TRIM_THRESHOLD (−1: the heap never shrinks), M_TOP_PAD (bytes)."""


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
