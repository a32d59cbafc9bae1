"""The direction of refusal is removed from the residual stream (Arditi et al. 2024, arXiv 2406.11717).

Difference of the mean last-token states of harmful and harmless prompts at one layer, removed from every block's
output while the model answers. Deviations: the layer is a share of the depth instead of being searched; the
direction is removed after each block (and not inside of it); weights are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.records import Chat
from rerouting.data.sources.bundled import Bundled
from rerouting.models.layers import decoder_blocks
from rerouting.targets.directions import changed_outputs, last_token_states
from rerouting.targets.target import Target


@dataclass(frozen=True)
class RefusalAblation:
    """White-box removal of one direction."""

    layer: float = 0.6
    """Where the direction is read, as a share of the depth."""
    prompts: int = 64
    """Harmful and harmless prompts that it is read from."""

    group: ClassVar[int] = 64
    cases: ClassVar[dict[str, int | None]] = {"quick": 8}

    def fit(self, target: Target, resources: Resources) -> dict[str, Tensor]:
        """The direction (D,), unit length."""
        harmful = last_token_states(
            target.model, target.tokenizer, Bundled("harmful", "train", self.prompts).load()
        )
        harmless = last_token_states(
            target.model, target.tokenizer, Bundled("benign", "train", self.prompts).load()
        )
        at = round(self.layer * (harmful.shape[1] - 1))
        difference = harmful[:, at].mean(dim=0) - harmless[:, at].mean(dim=0)
        return {"direction": difference / difference.norm()}

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """The plain requests, answered without the direction."""
        remove = partial(_remove, resources.fitted["direction"])
        attempts = [Attempt(chat) for chat in chats]
        with changed_outputs(target.model, dict.fromkeys(range(len(decoder_blocks(target.model))), remove)):
            answers = target.answer(attempts)
        return [attempt.answered(answer) for attempt, answer in zip(attempts, answers, strict=True)]


def _remove(direction: Tensor, states: Tensor) -> Tensor:
    """States (B, T, D) without their part along the direction."""
    unit = direction.to(states)
    return states - (states @ unit)[..., None] * unit
