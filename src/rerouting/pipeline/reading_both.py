"""Both models read one text: cosine and length of their hidden states by layer and token, and how far they part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rerouting.data.formatting import Example
from rerouting.models.loading import LoadedModel

BELOW = 0.5
"""Cosine between base and rerouted state under which a token counts as rerouted; an angle of 60°."""
STRETCH = 4
"""Tokens over which the mean cosine must stay there, for the first of them to be where the breaker trips."""


@dataclass(frozen=True)
class Reading:
    """One text of T tokens, read by both models of L layers.

    Attributes:
        cosine: of base and rerouted state, (L + 1, T); layer 0 is the embedding.
        norm_ratio: rerouted over base length, (L + 1, T).
        kl: from base to rerouted, of the prediction of each response token, nats, (R,).
        n_prompt: tokens of the prompt, T − R.
    """

    cosine: Tensor
    norm_ratio: Tensor
    kl: Tensor
    n_prompt: int

    def trip(self, layer: int) -> int | None:
        """The response token (from 0) from which the cosine at a layer stays low; None if it does not."""
        return trip_of(self.cosine[layer, self.n_prompt :].tolist())


def trip_of(cosines: list[float]) -> int | None:
    """The first place from which the next few cosines are low on average; None without."""
    for at in range(len(cosines)):
        window = cosines[at : at + STRETCH]
        if cosines[at] < BELOW and sum(window) / len(window) < BELOW:
            return at
    return None


@torch.inference_mode()
def read_both(base: LoadedModel, rerouted: LoadedModel, example: Example) -> Reading:
    """One text through both models, in full."""
    outputs = [
        one.model(
            torch.tensor([example.ids], device=one.device),
            use_cache=False,
            output_hidden_states=True,
            logits_to_keep=len(example.ids) - example.n_prompt + 1,
        )
        for one in (base, rerouted)
    ]
    before, after = (
        torch.cat([state.float().cpu() for state in output.hidden_states]) for output in outputs
    )  # (L + 1, T, D)
    own, new = (output.logits[0, :-1].float().log_softmax(-1).cpu() for output in outputs)
    return Reading(
        cosine_similarity(before, after, dim=-1),
        after.norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-6),
        (own.exp() * (own - new)).sum(-1),
        example.n_prompt,
    )
