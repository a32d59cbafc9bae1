"""Negative log-likelihood of given responses, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rerouting.core.prompts import followed_by, images_of
from rerouting.models.images import media_of
from rerouting.models.packed_scoring import Sequences, packed_nll, packs


@dataclass(frozen=True)
class Said:
    """An answer to be scored: its prompt, its tokens, and whether it ended by itself or was cut by a limit."""

    prompt: Sequence[int]
    ids: Sequence[int]
    ended: bool


def answer_nll(
    model: Any,
    answers: Sequence[Said],
    *,
    ends: Sequence[int],
    pad_id: int,
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda count: None,
) -> list[tuple[list[float], float | None]]:
    """Negative log-likelihood of answers' tokens, and of ending where they end.

    Args:
        model: causal language model.
        answers: any.
        ends: tokens that end an answer, each as good as another (`generation.end_tokens`); none measures no end.
        pad_id: token that fills a batch.
        batch_size: answers in one forward pass.
        progress: told of scored answers.

    Returns:
        Nats of each token, and of an end behind them; None for an answer that did not end.
    """
    added = [ends[:1] if one.ended else [] for one in answers]
    sequences = [
        (followed_by(one.prompt, [*one.ids, *end]), len(one.prompt))
        for one, end in zip(answers, added, strict=True)
    ]
    scores = response_nll(
        model, sequences, pad_id=pad_id, batch_size=batch_size, ends=ends, progress=progress
    )
    return [
        (nll[: len(one.ids)].tolist(), float(nll[-1]) if end else None)
        for one, end, nll in zip(answers, added, scores, strict=True)
    ]


def response_nll(
    model: Any,
    sequences: Sequences,
    *,
    pad_id: int,
    batch_size: int = 8,
    ends: Sequence[int] = (),
    progress: Callable[[int], None] = lambda count: None,
) -> list[Tensor]:
    """Score the response tokens of each sequence under the full model, packed where the family can be.

    Args:
        model: causal language model, with or without adapters.
        sequences: token ids (prompt and response) and the number of prompt tokens, at least 1; a `Prompt` where there
            are pictures.
        pad_id: token that fills a batch; never scored.
        batch_size: sequences in one forward pass: padded ones are of like lengths; packed ones begin alike, and twice
            as many take no more room.
        ends: tokens any of which a last token stands for that is one of them.
        progress: told of scored sequences.

    Returns:
        One float32 tensor (T,) per sequence, nats for each of its T response tokens, in the given order.
    """

    padded = partial(_padded_nll, pad_id=pad_id)
    pictured = any(images_of(ids) for ids, _ in sequences)
    packed = not pictured and packs(model, sequences, padded)
    if packed:  # what begins alike goes together
        score, size = partial(packed_nll, ends=ends), 2 * batch_size
        order = sorted(range(len(sequences)), key=lambda at: list(sequences[at][0]))
    else:  # what is about equally long does
        score, size = partial(padded, ends=ends), batch_size
        order = sorted(range(len(sequences)), key=lambda at: -len(sequences[at][0]))
    scores: dict[int, Tensor] = {}
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        scores |= zip(rows, score(model, [sequences[index] for index in rows]), strict=True)
        progress(len(rows))
    return [scores[index] for index in range(len(sequences))]


@torch.no_grad()
def _padded_nll(model: Any, sequences: Sequences, *, pad_id: int, ends: Sequence[int] = ()) -> list[Tensor]:
    """One forward pass over rows that are padded on the right."""
    device = next(model.parameters()).device
    width = max(len(ids) for ids, _ in sequences)
    input_ids = torch.full((len(sequences), width), pad_id, dtype=torch.long, device=device)
    attention_mask = torch.zeros_like(input_ids)
    for row, (ids, _) in enumerate(sequences):
        input_ids[row, : len(ids)] = torch.tensor(ids, device=device)
        attention_mask[row, : len(ids)] = 1
    spans = [range(prompt - 1, len(ids) - 1) for ids, prompt in sequences]
    kept = sorted({at for span in spans for at in span})
    if not kept:
        return [torch.empty(0) for _ in sequences]
    given = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    rows, prompts = zip(*sequences, strict=True)
    given |= media_of(model, rows, prompts, [one for ids in rows for one in images_of(ids)], width)
    logits = model(**given, logits_to_keep=torch.tensor(kept, device=device)).logits
    place = {at: number for number, at in enumerate(kept)}
    scores = []
    for row, (ids, prompt) in enumerate(sequences):
        own = logits[row, [place[at] for at in spans[row]]].float()
        labels = input_ids[row, prompt : len(ids)]
        score = torch.nn.functional.cross_entropy(own, labels, reduction="none").cpu()
        if len(labels) and int(labels[-1]) in ends:
            score[-1] = own[-1].logsumexp(dim=0) - own[-1, list(ends)].logsumexp(dim=0)
        scores.append(score)
    return scores
