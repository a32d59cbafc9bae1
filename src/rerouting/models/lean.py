"""All that makes a pass cheaper without changing what it computes, together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from rerouting.models.gates import lean_gates
from rerouting.models.low_rank import lean_adapters
from rerouting.models.norms import lean_norms

WAYS = {"adapters": lean_adapters, "gates": lean_gates, "norms": lean_norms}
"""By what they are about; each gives the number of places where it applies."""


@contextmanager
def lean(model: nn.Module, without: str = "") -> Iterator[dict[str, int]]:
    """Within this context all of `WAYS` are in force but the one named; gives the number of places of each."""
    with ExitStack() as ways:
        yield {name: ways.enter_context(way(model)) for name, way in WAYS.items() if name != without}
