"""Teaching a small vision-language model to see: first the vision tower alone, then through the language model.

Ours. In the first part each patch also learns to look like a word: together they spell what is on the picture, in the
language model's own embeddings ("colour: Red"), so that there is something to read from the start of the second part.
In the second part the language model's adapters learn too, where it has any: frozen, it reads those words badly
(docs/log.md). A third of the steps show a picture beside an ordinary request, whose answer is the language model's own
without the picture (or a refusal, where the request is harmful): a picture is to inform, and to change nothing else.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rerouting.core.progress import bar
from rerouting.models.layers import unwrapped
from rerouting.models.lora import adapter_parameters
from rerouting.models.target_rows import target_rows

SHIFT = 4
"""Pixels by which pictures are moved, at most."""


@dataclass(frozen=True)
class Told:
    """A request about a picture and what is to be answered: number of the picture, and token ids."""

    picture: int
    prompt: Sequence[int]
    answer: Sequence[int]


@dataclass(frozen=True)
class Album:
    """Pictures as the processor hands them to the model, before scaling, and what is known of them.

    Attributes:
        pixels: uint8 (N, 3, H, W), on the model's device.
        labels: number of each fact's value, −100 where a picture does not show the fact, int64 (N, F).
        values: how many values each of the F facts can have.
        words: token that each of the P patches is to look like at first, int64 (N, P).
        spoken: which of the patches say something, and not that there is nothing to say, boolean (N, P).
        mean: of the processor's normalisation, a colour each.
        std: likewise.
    """

    pixels: Tensor
    labels: Tensor
    values: tuple[int, ...]
    words: Tensor
    spoken: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def batch(self, numbers: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normalised pictures (B, 3, H, W); moved and tinted at random where a generator is given."""
        picked = self.pixels[numbers].float() / 255
        if generator is not None:
            padded = nn.functional.pad(picked, (SHIFT,) * 4, mode="replicate")
            top, left = torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator).tolist()
            picked = padded[:, :, top : top + picked.shape[2], left : left + picked.shape[3]]
            light = 0.85 + 0.3 * torch.rand(len(picked), 1, 1, 1, generator=generator)
            picked = picked * light.to(picked.device) + 0.03 * torch.randn_like(picked)
            picked = picked.clamp(0, 1)
        mean, std = (torch.tensor(own, device=picked.device)[:, None, None] for own in (self.mean, self.std))
        return (picked - mean) / std


def learn_to_see(
    model: Any, album: Album, *, steps: int, size: int, rate: float, seconds: float | None, seed: int
) -> list[dict[str, float]]:
    """Train tower and projector to know the facts of pictures.

    They learn by one linear head a fact, which is then thrown away, and by what the patches look like.

    Returns:
        Loss and share of right facts along the way.
    """
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    device, table = album.pixels.device, model.get_input_embeddings().weight
    known = torch.unique(album.words)
    spelling = table[known].float()
    width = model.config.vision_config.hidden_size
    heads = nn.ModuleList(nn.Linear(width, count) for count in album.values).to(device)
    own = [*tower.parameters(), *projector.parameters()]
    parameters = [*own, *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, fused=True)
    draw, generator = _Draw(len(album.pixels), seed), torch.Generator().manual_seed(seed)

    def loss_of() -> tuple[Tensor, Tensor]:
        numbers = draw(size).to(device)
        with _cast(device):
            # the features that the projector reads
            seen = tower(pixel_values=album.batch(numbers, generator), output_hidden_states=True)
            mean = seen.hidden_states[-1].mean(dim=1)
            logits = [head(mean).float() for head in heads]
            patches = projector(seen.hidden_states[-1]).float()
        wanted = torch.searchsorted(known, album.words[numbers])
        loss, right = _facts_loss(logits, album.labels[numbers])
        return loss + _spelling_loss(patches, spelling, wanted, album.spoken[numbers]), right

    with _learning(own):
        return _loop("learning to see", parameters, optimizer, loss_of, [rate], steps, seconds)


def learn_to_tell(
    model: Any,
    album: Album,
    questions: Sequence[Told],
    requests: Sequence[Told],
    *,
    steps: int,
    size: int,
    rate: float,
    seconds: float | None,
    seed: int,
) -> list[dict[str, float]]:
    """Train tower, projector, and adapters where there are any, until the language model answers.

    Args:
        model: vision-language model whose weights are frozen but for these, with adapters in its language model or
            without.
        album: the pictures.
        questions: about them.
        requests: that have nothing to do with them.
        steps: most steps.
        size: questions a step; half as many requests.
        rate: the projector's and the adapters'; the tower's is a quarter.
        seconds: most seconds; None for no limit.
        seed: of the order.

    Returns:
        Loss along the way, and of the answers' tokens the share that is the likeliest.
    """
    device = album.pixels.device
    inner: Any = unwrapped(model)
    parts = (inner.model.multi_modal_projector, inner.model.vision_tower)
    groups = [list(part.parameters()) for part in parts]
    rates = [rate, rate / 4]
    if adapters := list(adapter_parameters(model).values()):
        groups, rates = [*groups, adapters], [*rates, rate]
    optimizer = torch.optim.AdamW(
        [{"params": own, "lr": one} for own, one in zip(groups, rates, strict=True)],
        weight_decay=0.01,
        fused=True,
    )
    ask, beg = _Draw(len(questions), seed), _Draw(max(1, len(requests)), seed + 1)
    generator, done = torch.Generator().manual_seed(seed), iter(range(10**9))

    def loss_of() -> tuple[Tensor, Tensor]:
        if requests and next(done) % 3 == 2:
            rows = [requests[at] for at in beg(max(1, size // 2)).tolist()]
        else:
            rows = [questions[at] for at in ask(size).tolist()]
        numbers = torch.tensor([row.picture for row in rows], device=device)
        laid = target_rows([row.prompt for row in rows], [row.answer for row in rows], device)
        with _cast(device):
            logits = laid.logits(model, media={"pixel_values": album.batch(numbers, generator)})
        wanted = laid.labels
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100)
        right = (logits.detach().argmax(dim=-1) == wanted)[wanted != -100].float().mean()
        return loss, right

    parameters = [item for own in groups for item in own]
    with _learning(parameters):
        return _loop("learning to tell", parameters, optimizer, loss_of, rates, steps, seconds)


def _facts_loss(logits: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the facts that are shown, and the share of them that is right."""
    losses = [
        nn.functional.cross_entropy(own, labels[:, at], reduction="none", ignore_index=-100)
        for at, own in enumerate(logits)
    ]
    shown = labels != -100
    right = torch.stack([own.argmax(dim=-1) for own in logits], dim=1) == labels
    return torch.stack(losses, dim=1).sum() / shown.sum(), (right & shown).sum() / shown.sum()


def _spelling_loss(patches: Tensor, spelling: Tensor, wanted: Tensor, spoken: Tensor) -> Tensor:
    """How little patches look like the words that they are to look like.

    Args:
        patches: what the projector puts out, (B, P, D).
        spelling: embeddings of the K words, (K, D).
        wanted: number of each patch's word, (B, P).
        spoken: patches that say something; the others count for a tenth.
    """
    alike = nn.functional.normalize(patches, dim=-1) @ nn.functional.normalize(spelling, dim=-1).T
    named = nn.functional.cross_entropy((20 * alike).flatten(0, 1), wanted.flatten(), reduction="none")
    target = spelling[wanted]
    apart = (patches - target).pow(2).sum(dim=-1) / target.pow(2).sum(dim=-1)
    weight = 0.1 + 0.9 * spoken.float()
    return ((named.view_as(apart) + apart) * weight).sum() / weight.sum()


def _loop(
    name: str,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[], tuple[Tensor, Tensor]],
    rates: Sequence[float],
    steps: int,
    seconds: float | None,
) -> list[dict[str, float]]:
    """Steps until their number or the time is reached; rates rise at first, and fall to 0 by a cosine."""
    began, rows = time.monotonic(), list[dict[str, float]]()
    with bar(name, steps) as progress:
        for step in range(1, steps + 1):
            spent = time.monotonic() - began
            part = max((step - 1) / steps, spent / seconds if seconds else 0.0)
            if part >= 1:
                break
            scale = min(1.0, step / 30, part / 0.03 + 0.1) * 0.5 * (1 + math.cos(math.pi * part))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            loss, right = loss_of()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            progress.advance()
            if step % 25 == 0 or step == 1:  # reading a number waits for the device
                rows.append({"step": step, "loss": loss.item(), "right": right.item(), "seconds": spent})
                progress.note(f"loss {loss.item():.3f}  right {right.item():.1%}")
            if step % 200 == 0:
                told = f"{name}: step {step}, {spent:.0f} s, loss {loss.item():.3f}, right {right.item():.1%}"
                sys.stderr.write(f"{told}\n")
    return rows


@contextmanager
def _learning(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within this context these weights learn."""
    for item in parameters:
        item.requires_grad_(True)
    try:
        yield
    finally:
        for item in parameters:
            item.requires_grad_(False)


class _Draw:
    """Numbers below a count, each once before any comes twice."""

    def __init__(self, count: int, seed: int) -> None:
        self.stream = self._numbers(count, torch.Generator().manual_seed(seed))

    def __call__(self, size: int) -> Tensor:
        return torch.tensor([next(self.stream) for _ in range(size)])

    @staticmethod
    def _numbers(count: int, generator: torch.Generator) -> Iterator[int]:
        while True:
            yield from torch.randperm(count, generator=generator).tolist()


def _cast(device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
