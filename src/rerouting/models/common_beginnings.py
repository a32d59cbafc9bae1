"""What several packed sequences begin with runs once: a system prompt, the header of a turn, the whole request.

Every token up to there sees the same tokens at the same positions, so that its states are the same in all of them. Only
attention looks at whole sequences: for it the common tokens are put back into each, and the gradients that come from
there add up. Same arithmetic in float32 but for the order of sums; in bfloat16 they are added up in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rerouting.models.moved_rows import moved

WORTHWHILE = 0.05
"""Share of the tokens that must be common: below it, putting them back costs more than they do."""


@dataclass(frozen=True)
class Common:
    """Which of N tokens that run stands at each of the M places of whole sequences, one behind the other.

    Attributes:
        sources: the token, (M,).
        first: each token's first place, ascending, (N,).
        again: the other places, (M − N,).
        back: the token at first places, and N at others, (M,).
    """

    sources: Tensor
    first: Tensor
    again: Tensor
    back: Tensor

    @classmethod
    def of(
        cls, rows: Sequence[Sequence[int]], counts: Sequence[Sequence[bool]], device: torch.device | str
    ) -> Common | None:
        """Find common beginnings; None where too little is common.

        Args:
            rows: token ids of each sequence.
            counts: whether each token counts for the loss: such tokens, and all behind them, are its own.
            device: where the tensors go.
        """
        sources, first = _numbered(rows, counts)
        if len(sources) - len(first) < WORTHWHILE * len(sources):
            return None
        tokens, places = torch.tensor(sources), torch.tensor(first)
        others = torch.ones(len(sources), dtype=torch.bool).index_fill_(0, places, False)
        again = others.nonzero().flatten()
        back = tokens.index_fill(0, again, len(first))
        return cls(*(item.to(device) for item in (tokens, places, again, back)))

    def whole(self, states: Tensor) -> Tensor:
        """States of the tokens that run, (N, H, D), at every place of whole sequences: (M, H, D)."""
        found: Tensor = _Whole.apply(states.flatten(1), self)  # type: ignore[no-untyped-call]
        return found.view(-1, *states.shape[1:])

    def once(self, states: Tensor) -> Tensor:
        """States at every place, (M, H, D), of the tokens that run: (N, H, D)."""
        return moved(states.flatten(1), self.first, self.back).view(-1, *states.shape[1:])


def _numbered(rows: Sequence[Sequence[int]], counts: Sequence[Sequence[bool]]) -> tuple[list[int], list[int]]:
    """Number the tokens that have to run: the number at each place, and each number's first place."""
    known: dict[tuple[int, int], int] = {}
    sources: list[int] = []
    first: list[int] = []
    for row, own in zip(rows, counts, strict=True):
        before = -1
        for token, counting in zip(row, own, strict=True):
            number = None if counting else known.get((before, token))
            if number is None:
                number = len(first)
                first.append(len(sources))
                if not counting:
                    known[before, token] = number
            sources.append(number)
            before = number
    return sources, first


class _Whole(torch.autograd.Function):
    """Rows taken by number; what comes back to one row from several places is added up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, common: Common) -> Tensor:
        ctx.common = common
        return rows.index_select(0, common.sources)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        common = ctx.common
        total = grad.index_select(0, common.first).float()
        total.index_add_(0, common.sources[common.again], grad.index_select(0, common.again).float())
        return total.to(grad.dtype), None
