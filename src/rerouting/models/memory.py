"""Batches that halve when memory runs out."""

from __future__ import annotations

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
