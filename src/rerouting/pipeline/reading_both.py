"""Both models read one text: cosine and length of their hidden states by layer and token, and how far they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rerouting.data.formatting import Example
from rerouting.models.loading import LoadedModel
from rerouting.pipeline.chat_style import TRIP_BELOW
from rerouting.pipeline.trip import TripWatch, divergences
from rerouting.targets.reading import whole_pass


@dataclass(frozen=True)
class Reading:
    """One text of T tokens, read by both models of L layers.

    Attributes:
        cosine: of base and rerouted state, (L + 1, T); layer 0 is the embedding.
        norm_ratio: rerouted over base length, (L + 1, T).
        kl: from base to rerouted, of the prediction of each response token, nats, R of them; None where it is none.
        n_prompt: tokens of the prompt, T − R.
    """

    cosine: Tensor
    norm_ratio: Tensor
    kl: list[float | None]
    n_prompt: int

    def written_from(self, layers: Sequence[int]) -> list[float]:
        """For each response token the lowest cosine, over some layers, of the state that it is predicted from."""
        found: list[float] = self.cosine[list(layers), self.n_prompt - 1 : -1].min(dim=0).values.tolist()
        return found

    def trip(self, layers: Sequence[int]) -> int | None:
        """The response token (from 0) at which the breaker trips, as the chat's trace has it; None if it does not."""
        return trip_of(self.written_from(layers))


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
    outputs = [whole_pass(one.model, example, layers=True) for one in (base, rerouted)]
    before, after = (
        torch.cat([state.float().cpu() for state in output.hidden_states]) for output in outputs
    )  # (L + 1, T, D)
    own, new = (output.logits[0, :-1].float().cpu() for output in outputs)
    return Reading(
        cosine_similarity(before, after, dim=-1),
        after.norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-6),
        divergences(own, new),
        example.n_prompt,
    )
