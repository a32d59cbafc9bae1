"""Batches that halve when memory runs out, and freed memory that is kept for the next step."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from rerouting.core.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("alloc" in text or "out of memory" in text)
    )


def free_memory() -> None:
    """Give cached blocks back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next step, instead of giving it back; says whether it was told so.

    glibc returns the free end of its heap to the system, which hands it out again page by page: a training step on a
    CPU frees all its activations at once and can spend a fifth of its time so (docs/performance.md). Single tensors
    over 32 MiB, the largest threshold that glibc takes, are still returned. It is told for the whole process, and not
    where the user tunes malloc (GLIBC_TUNABLES, MALLOC_…).
    """
    tuned = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    try:
        here = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):  # no such question on this system
        here = False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if here and not tuned else None
    return mallopt is not None and all(mallopt(name, size) == 1 for name, size in _GLIBC.items())


_GLIBC = {-3: 32 << 20, -1: -1, -2: 64 << 20}
"""malloc.h: M_MMAP_THRESHOLD (bytes), M_TRIM_THRESHOLD (−1: the heap never shrinks), M_TOP_PAD (bytes)."""


def in_batches(
    call: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], size: int
) -> list[Result]:
    """Results of all items, at most `size` at a time; the size halves whenever memory runs out.

    Args:
        call: gives one result an item of a batch.
        items: all of them.
        size: largest batch.

    Raises:
        UserError: memory is too small for one item.
    """
    results: list[Result] = []
    while len(results) < len(items):
        batch = items[len(results) : len(results) + size]
        try:
            results.extend(call(batch))
        except (RuntimeError, MemoryError) as error:
            size = halved(error, len(batch))
    return results


def halved(error: BaseException, size: int) -> int:
    """Half the size of a batch that did not fit; any other error goes on its way.

    Raises:
        UserError: the batch was one item already.
    """
    if not is_out_of_memory(error):
        raise error
    if size <= 1:
        raise UserError(
            "memory is too small for one item", "shorten the prompts, or take a smaller model"
        ) from error
    free_memory()
    return size // 2
