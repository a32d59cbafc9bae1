"""The direction of refusal is removed from the model (Arditi et al. 2024, arXiv 2406.11717).

Difference of the mean last-token states of harmful and harmless prompts at one layer. It is removed from the stream
(every block's input and output, and what attention and MLP add to it) or from the weights that write to the stream,
which are put back afterwards. Deviations: the prompts are the package's own; only the last prompt position is a
candidate; a layer is chosen by how likely the ablated model finds the targets of harmful validation prompts, among
those that change the loss of harmless next tokens by less than `max_harm`, instead of by refusal tokens and KL
divergence; layers above 0.8 of the depth are no candidates, as in the paper. With `where` "weights" the embedding
stays and its share is removed from the first block's input, which is the same function.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.records import Chat
from rerouting.data.sources.bundled import Bundled
from rerouting.models.layers import decoder_blocks
from rerouting.models.steering_hooks import changed_stream, edited_weights, resolved_layers, without
from rerouting.targets.directions import last_token_states, most_compliant
from rerouting.targets.target import Target

_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class RefusalAblation:
    """White-box removal of one direction."""

    layer: float | None = None
    """Where the direction is read: a share of the depth (below 1) or a layer; null chooses one on validation."""
    where: Literal["stream", "weights"] = "stream"
    """What the direction is removed from."""
    prompts: int = 64
    """Harmful and harmless prompts that it is read from."""
    validation: int = 16
    """Harmful and harmless prompts that the layer is chosen on."""
    max_harm: float = 0.2
    """Most that a chosen direction's removal may add to the mean loss of harmless prompts' tokens, in nats."""

    group: ClassVar[int] = 64
    tampers: ClassVar[bool] = True
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"prompts": 32, "validation": 8},
        "paper": {"prompts": 128, "validation": 32},
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 8, "standard": 40, "paper": None}

    def fit(self, target: Target, resources: Resources) -> dict[str, Tensor]:
        """The direction (D,), unit length, and the layer it was read at."""
        harmful, harmless = (
            last_token_states(target.model, target.tokenizer, Bundled(kind, "train", self.prompts).load())
            for kind in ("harmful", "benign")
        )
        difference = harmful.mean(dim=0) - harmless.mean(dim=0)
        units = difference / difference.norm(dim=1, keepdim=True)
        depth = len(decoder_blocks(target.model))
        if self.layer is not None:
            (at,) = resolved_layers([self.layer], depth)
        else:
            at = most_compliant(
                target,
                resolved_layers(_SHARES, depth),
                lambda layer: changed_stream(target.model, partial(without, units[layer])),
                self.validation,
                self.max_harm,
            )
        resources.progress(f"refusal direction of layer {at}")
        return {"direction": units[at].contiguous(), "layer": torch.tensor(at)}

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """The plain requests, answered without the direction."""
        trace = {"layer": int(resources.fitted["layer"]), "where": self.where}
        attempts = [Attempt(chat, trace=trace) for chat in chats]
        with self._ablated(target.model, resources.fitted["direction"]):
            answers = target.answer(attempts)
        return [attempt.answered(answer) for attempt, answer in zip(attempts, answers, strict=True)]

    def _ablated(self, model: Any, direction: Tensor) -> AbstractContextManager[None]:
        if self.where == "weights":
            return edited_weights(model, direction)
        return changed_stream(model, partial(without, direction))
