"""Negative log-likelihood of given responses, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rerouting.core.prompts import followed_by, images_of
from rerouting.models.images import media_of


@dataclass(frozen=True)
class Said:
    """An answer to be scored: its prompt, its tokens, and whether it ended by itself or was cut by a limit."""

    prompt: Sequence[int]
    ids: Sequence[int]
    ended: bool


def answer_nll(
    model: Any, answers: Sequence[Said], *, ends: Sequence[int], pad_id: int, batch_size: int = 8
) -> list[tuple[list[float], float | None]]:
    """Negative log-likelihood of answers' tokens, and of ending where they end.

    Args:
        model: causal language model.
        answers: any.
        ends: tokens that end an answer, each as good as another (`generation.end_tokens`); none measures no end.
        pad_id: token that fills a batch.
        batch_size: answers in one forward pass.

    Returns:
        Nats of each token, and of an end behind them; None for an answer that did not end.
    """
    added = [ends[:1] if one.ended else [] for one in answers]
    sequences = [
        (followed_by(one.prompt, [*one.ids, *end]), len(one.prompt))
        for one, end in zip(answers, added, strict=True)
    ]
    scores = response_nll(model, sequences, pad_id=pad_id, batch_size=batch_size, ends=ends)
    return [
        (nll[: len(one.ids)].tolist(), float(nll[-1]) if end else None)
        for one, end, nll in zip(answers, added, scores, strict=True)
    ]


@torch.no_grad()
def response_nll(
    model: Any,
    sequences: Sequence[tuple[Sequence[int], int]],
    *,
    pad_id: int,
    batch_size: int = 8,
    ends: Sequence[int] = (),
) -> list[Tensor]:
    """Score the response tokens of each sequence under the full model.

    Args:
        model: causal language model, with or without adapters.
        sequences: token ids (prompt and response) and the number of prompt tokens, at least 1; a `Prompt` where there
            are pictures.
        pad_id: token that fills a batch; never scored.
        batch_size: sequences in one forward pass; they are sorted by length.
        ends: tokens any of which a last token stands for that is one of them.

    Returns:
        One float32 tensor (T,) per sequence, nats for each of its T response tokens, in the given order.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index][0]))
    scores: dict[int, Tensor] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = len(sequences[rows[0]][0])
        input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long, device=device)
        attention_mask = torch.zeros_like(input_ids)
        for row, index in enumerate(rows):
            ids = sequences[index][0]
            input_ids[row, : len(ids)] = torch.tensor(ids, device=device)
            attention_mask[row, : len(ids)] = 1
        spans = {index: range(sequences[index][1] - 1, len(sequences[index][0]) - 1) for index in rows}
        kept = sorted({at for span in spans.values() for at in span})
        if not kept:
            scores |= {index: torch.empty(0) for index in rows}
            continue
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
        some, prompts = zip(*(sequences[index] for index in rows), strict=True)
        given |= media_of(model, some, prompts, [one for ids in some for one in images_of(ids)], width)
        logits = model(**given, logits_to_keep=torch.tensor(kept, device=device)).logits
        place = {at: number for number, at in enumerate(kept)}
        for row, index in enumerate(rows):
            own = logits[row, [place[at] for at in spans[index]]].float()
            labels = input_ids[row, sequences[index][1] : len(sequences[index][0])]
            scores[index] = torch.nn.functional.cross_entropy(own, labels, reduction="none").cpu()
            if len(labels) and int(labels[-1]) in ends:
                scores[index][-1] = own[-1].logsumexp(dim=0) - own[-1, list(ends)].logsumexp(dim=0)
    return [scores[index] for index in range(len(sequences))]
