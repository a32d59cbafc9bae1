"""A reading vector is added to the residual stream (the paper's RepE attack).

Source: Zou et al. 2023, arXiv 2310.01405; settings of Zou et al. 2024, arXiv 2406.04313: first principal component of
the differences between harmful and harmless prompts' last-token states, added to layers −11 to −20 at all positions
with coefficient 0.65 (Mistral) or 1.0 (Llama-3). The component's sign is chosen so that harmful prompts project
higher; a *negative* coefficient makes a prompt look harmless, which is the direction of compliance. Deviations:
layers are shares of the depth (the paper's blocks 12 to 21 of 32); the prompts are the package's own; differences are
not centred before the decomposition (the mean difference is what is looked for); the component, of unit length,
counts in shares of the layer's mean state norm unless `absolute`. The budget "paper" has Llama-3's values.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.sources.bundled import Bundled
from rerouting.models.layers import decoder_blocks
from rerouting.models.steering_hooks import changed_layer, plus
from rerouting.targets.directions import last_token_states
from rerouting.targets.target import Target


@dataclass(frozen=True)
class Repe:
    """White-box steering by a reading vector."""

    coefficient: float = -0.05
    """Times the unit vector, in shares of the layer's mean state norm unless `absolute`; negative is harmless."""
    absolute: bool = False
    """Take the coefficient as it stands, as the paper does."""
    first: float = 0.375
    """First block, as a share of the depth (the paper's −20 of 32)."""
    last: float = 0.6875
    """End of the blocks, as a share of the depth (behind the paper's −11 of 32)."""
    pairs: int = 64
    """Harmful and harmless prompts that the vector is read from."""

    group: ClassVar[int] = 64
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"pairs": 32},
        "paper": {"coefficient": -1.0, "absolute": True, "pairs": 128},
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 8, "standard": 40, "paper": None}

    def fit(self, target: Target, resources: Resources) -> dict[str, Tensor]:
        """First principal component (L + 1, D), harmful side positive, and mean state norm (L + 1,) of each layer."""
        return reading_vectors(
            *(
                last_token_states(target.model, target.tokenizer, Bundled(kind, "train", self.pairs).load())
                for kind in ("harmful", "benign")
            )
        )

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """The plain requests, answered by the steered model.

        Raises:
            UserError: no block lies in the range.
        """
        blocks = self._blocks(len(decoder_blocks(target.model)))
        vectors, norms = resources.fitted["vectors"], resources.fitted["norms"]
        layers = [block + 1 for block in blocks]
        attempts = [
            Attempt(chat, trace={"coefficient": self.coefficient, "layers": layers}) for chat in chats
        ]
        with ExitStack() as stack:
            for layer in layers:
                scale = self.coefficient * (1.0 if self.absolute else float(norms[layer]))
                added = partial(plus, scale * vectors[layer])
                stack.enter_context(changed_layer(target.model, layer, added))
            answers = target.answer(attempts)
        return [attempt.answered(answer) for attempt, answer in zip(attempts, answers, strict=True)]

    def _blocks(self, depth: int) -> range:
        blocks = range(max(0, round(self.first * depth)), min(depth, round(self.last * depth)))
        if not blocks:
            raise UserError(
                f"no block of {depth} lies between the shares {self.first} and {self.last}",
                "give shares of the depth between 0 and 1, the first the smaller",
            )
        return blocks


def reading_vectors(harmful: Tensor, harmless: Tensor) -> dict[str, Tensor]:
    """First principal component of paired differences, unit length, on which harmful states lie higher.

    Args:
        harmful: states of B prompts at each layer, (B, L, D).
        harmless: as many of harmless prompts.
    """
    differences = harmful - harmless
    components = torch.linalg.svd(differences.transpose(0, 1), full_matrices=False).Vh[:, 0]
    side = (differences.mean(dim=0) * components).sum(dim=1, keepdim=True)
    norms = torch.cat([harmful, harmless]).norm(dim=2).mean(dim=0)
    return {"vectors": torch.where(side < 0, -components, components).contiguous(), "norms": norms}
