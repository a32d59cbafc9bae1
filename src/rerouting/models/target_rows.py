"""Prompts of unequal length with the continuations wanted after them, as one batch padded on the right.

What the white-box attacks minimise: the mean cross-entropy of the wanted tokens, a row by itself. Padding stands
behind every real token, so that a causal model gives a row the loss that it has alone (but for rounding).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rerouting.core.prompts import images_of
from rerouting.models.images import media_of


@dataclass(frozen=True)
class TargetRows:
    """B rows of T positions: prompt, wanted tokens but the last, padding.

    Attributes:
        ids: token ids, 0 at padding, (B, T).
        mask: 1 for real tokens, (B, T).
        prompts: length of each row's prompt.
        kept: positions whose logits are needed by any row, ascending, (K,).
        labels: wanted token after each kept position, −100 where the row wants none, (B, K).
    """

    ids: Tensor
    mask: Tensor
    prompts: tuple[int, ...]
    kept: Tensor
    labels: Tensor

    @property
    def prompt_mask(self) -> Tensor:
        """Which positions are the prompt's, boolean (B, T)."""
        lengths = torch.tensor(self.prompts, device=self.ids.device)
        return torch.arange(self.ids.shape[1], device=self.ids.device) < lengths[:, None]

    def media(self, model: Any, prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """The pictures of the prompts that were laid out, as the model takes them; nothing for text alone."""
        images = [image for prompt in prompts for image in images_of(prompt)]
        return media_of(model, self.ids.tolist(), self.prompts, images, self.ids.shape[1])

    def logits(
        self, model: Any, embeddings: Tensor | None = None, media: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Logits at the kept positions, float32 (B, K, V).

        Args:
            model: causal language model.
            embeddings: input embeddings (B, T, D) in place of the ids.
            media: pictures and what belongs to them (`models.images`).
        """
        given = {"input_ids": self.ids} if embeddings is None else {"inputs_embeds": embeddings}
        more = {**(media or {}), "use_cache": False, "logits_to_keep": self.kept}
        found: Tensor = model(**given, attention_mask=self.mask, **more).logits
        return found.float()

    def losses(
        self, model: Any, embeddings: Tensor | None = None, media: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Mean cross-entropy of each row's wanted tokens, nats a token, float32 (B,); arguments as in `logits`."""
        losses = torch.nn.functional.cross_entropy(
            self.logits(model, embeddings, media).transpose(1, 2),
            self.labels,
            reduction="none",
            ignore_index=-100,
        )
        return losses.sum(dim=1) / (self.labels != -100).sum(dim=1)


def target_rows(
    prompts: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]], device: torch.device
) -> TargetRows:
    """Lay out prompts and what is wanted after them; each at least one token."""
    width = max(len(prompt) + len(want) - 1 for prompt, want in zip(prompts, wanted, strict=True))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (prompt, want) in enumerate(zip(prompts, wanted, strict=True)):
        real = [*prompt, *want[:-1]]
        ids[row, : len(real)] = torch.tensor(real)
        mask[row, : len(real)] = 1
        labels[row, len(prompt) - 1 : len(real)] = torch.tensor(list(want))
    kept = (labels != -100).any(dim=0).nonzero()[:, 0]
    lengths = tuple(len(prompt) for prompt in prompts)
    return TargetRows(ids.to(device), mask.to(device), lengths, kept.to(device), labels[:, kept].to(device))


def finite(loss: float) -> float | None:
    """A loss for the record, which has no place for NaN and infinity."""
    return round(float(loss), 4) if math.isfinite(loss) else None
