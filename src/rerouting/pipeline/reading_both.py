"""Both models read one text: cosine and length of their hidden states by layer and token, and how far they part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rerouting.data.formatting import Example
from rerouting.models.loading import LoadedModel
from rerouting.pipeline.chat_style import TRIP_BELOW
from rerouting.pipeline.trip import TripWatch


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
        """The response token (from 0) from which the cosine at a layer stays low (`trip.TripWatch`); None without."""
        return trip_of(self.cosine[layer, self.n_prompt :].tolist())


def trip_of(cosines: list[float]) -> int | None:
    """The first of several low cosines in a row, counted from 0."""
    watch = TripWatch(TRIP_BELOW)
    for at, cosine in enumerate(cosines):
        if watch.see(cosine, last=at + 1 == len(cosines)):
            assert watch.at is not None
            return watch.at - 1
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
