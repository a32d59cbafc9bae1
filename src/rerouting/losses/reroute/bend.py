"""Far from what it was, and all alike: the rerouting part of Representation Bending (RepBend).

Source: Yousefpour et al. 2025 (arXiv 2504.01550) as in the authors' code (github.com/AIM-Intelligence/RepBend,
methods/rep_bending/trainer.py, read at 8220c87): −β‖rep_cb − rep_M‖₂ over the tokens of unsafe chats, and
γ · mean over pairs of unsafe chats of 1 − cos. Their α‖·‖₂ on safe chats is the retain loss `l2`. Deviations:

- −‖·‖ has no floor, and only the step count ends it; here 1 − d/far, clipped at 0, where d is the distance in units of
  the reference's norm (1.41 is a right angle at equal length), so that one setting serves every model.
- There, the state that is made alike is the one at the prompt's last position; here each chat's mean over the tokens
  that count. Pairs lie within one micro-batch (see `orthogonal`).
- Their KL term on the retain set's next-token distributions is left out: it belongs to the retain side and needs the LM
  head, which training never runs. So is the (optional, there) pull to the states of a paired safe answer:
  `to_place` does that with a mean.

The distance has slope 1 in every direction, and 0 only at the very start (LoRA B = 0), where the second term moves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor, relu

from rerouting.losses.geometry import between_sequences


@dataclass(frozen=True)
class Bend:
    """Push every state away by a distance, and chats' mean states towards one another."""

    by_sequence: ClassVar[bool] = True

    far: float = 1.5
    """Distance asked for, as a share of the reference's norm; farther is no better."""
    alike: float = 0.1
    """Weight of the second term, 1 − cos between chats, beside the first."""

    def __post_init__(self) -> None:
        if not self.far > 0:
            raise ValueError(f"far is {self.far}, and must be above 0")

    def __call__(
        self, adapted: Tensor, reference: Tensor, generator: Generator, *, sequences: Tensor
    ) -> Tensor:
        """Shapes (L, N, D), (L, N, D), (N,) -> (L, N)."""
        old = reference.float()
        distance = (adapted.float() - old).norm(dim=-1) / old.norm(dim=-1).clamp_min(1e-6)
        apart = between_sequences(adapted, sequences, lambda cosines: 1 - cosines)
        return relu(1 - distance / self.far) + self.alike * apart
