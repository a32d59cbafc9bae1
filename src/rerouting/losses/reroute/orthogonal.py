"""Orthogonal to what it was, and harmful chats orthogonal to one another, so that no one direction undoes them all.

Source: EleutherAI's orthogonal circuit breakers (github.com/EleutherAI/unlearn,
unlearn/algorithm/orth_circuit_breakers.py, read at 4204ec6): the paper's cosine loss, plus the mean over pairs of chats
in a batch, off the diagonal, of ReLU(cos) between their mean states. Deviations:

- There, the pair term is multiplied by the mean length (against the thinning of gradients by pooling) and its weight
  (10, beside 23) grows from 0 over the run; here its weight is constant beside the first term's 1, and lengths do not
  count: the value is per token, and a long chat's pairs weigh as its tokens do.

**Micro-batches.** Pairs are those of chats that pass through the model together: `training.micro_batch` of them, in
one process. More or longer micro-batches change this loss, as they change no other; with micro-batches of one chat
there are no pairs and the term is 0 (EleutherAI's log has a whole sweep in which that happened). So a run whose loss
compares chats goes on only with the micro-batch and number of processes that it was begun with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor, relu

from rerouting.losses.geometry import between_sequences, cosine


@dataclass(frozen=True)
class Orthogonal:
    """Zero once every state is orthogonal to what it was, and every chat's mean state to the others'."""

    by_sequence: ClassVar[bool] = True

    apart: float = 1.0
    """Weight of the pair term beside the first."""

    def __call__(
        self, adapted: Tensor, reference: Tensor, generator: Generator, *, sequences: Tensor
    ) -> Tensor:
        """Shapes (L, N, D), (L, N, D), (N,) -> (L, N)."""
        return relu(cosine(adapted, reference)) + self.apart * between_sequences(adapted, sequences, relu)
