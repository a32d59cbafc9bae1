"""A reading vector is added to the residual stream (the paper's RepE attack).

Source: Zou et al. 2023, arXiv 2310.01405; settings of Zou et al. 2024: first principal component of the differences
between harmful and harmless prompts' last-token states, added to layers −11 to −20 with coefficient 0.65 to 1.0.
Deviations: layers are shares of the depth; the prompts are the package's own; the component, of unit length, counts
in shares of the layer's mean state norm; it is added with the sign that makes a prompt look harmless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.records import Chat
from rerouting.data.sources.bundled import Bundled
from rerouting.models.layers import decoder_blocks
from rerouting.targets.directions import changed_outputs, last_token_states
from rerouting.targets.target import Target


@dataclass(frozen=True)
class Repe:
    """White-box steering by a reading vector."""

    coefficient: float = -0.15
    """Times the layer's mean state norm; negative towards harmless."""
    first: float = 0.37
    """First layer, as a share of the depth (the paper's −20 of 32)."""
    last: float = 0.66
    """Last layer (the paper's −11 of 32)."""
    pairs: int = 64
    """Harmful and harmless prompts that the vector is read from."""

    group: ClassVar[int] = 64
    cases: ClassVar[dict[str, int | None]] = {"quick": 8}

    def fit(self, target: Target, resources: Resources) -> dict[str, Tensor]:
        """First principal component (L + 1, D), harmful side positive, and mean state norm (L + 1,) of each layer."""
        return reading_vectors(
            *(
                last_token_states(target.model, target.tokenizer, Bundled(kind, "train", self.pairs).load())
                for kind in ("harmful", "benign")
            )
        )

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """The plain requests, answered by the steered model."""
        depth = len(decoder_blocks(target.model))
        vectors, norms = resources.fitted["vectors"], resources.fitted["norms"]
        changes = {
            block: partial(_add, self.coefficient * float(norms[block + 1]) * vectors[block + 1])
            for block in range(int(self.first * depth), int(self.last * depth))
        }
        attempts = [Attempt(chat, trace={"coefficient": self.coefficient}) for chat in chats]
        with changed_outputs(target.model, changes):
            answers = target.answer(attempts)
        return [attempt.answered(answer) for attempt, answer in zip(attempts, answers, strict=True)]


def reading_vectors(harmful: Tensor, harmless: Tensor) -> dict[str, Tensor]:
    """First principal component of the differences (B, L, D), unit length, on which harmful states lie higher."""
    differences = harmful - harmless
    signs = torch.ones(len(differences), 1, 1)
    signs[1::2] = -1  # pairs in both orders, so that the mean difference is variance and not offset
    components = torch.linalg.svd((differences * signs).transpose(0, 1), full_matrices=False).Vh[:, 0]
    side = (differences.mean(dim=0) * components).sum(dim=1, keepdim=True).sign()
    norms = torch.cat([harmful, harmless]).norm(dim=2).mean(dim=0)
    return {"vectors": (components * side).contiguous(), "norms": norms}


def _add(vector: Tensor, states: Tensor) -> Tensor:
    return states + vector.to(states)
