"""Projected gradient descent on the pixels of the picture, towards an affirmative answer.

Source: Zou et al. 2024, multimodal section: ε = 32/255, 1,000 steps, affirmative target; Madry et al. 2018 for the
method (sign of the gradient, L∞ ball), Dong et al. 2018 for momentum. The step size is ours (the paper gives none). A
picture is first brought to a size that the model's processor leaves alone, so that every change is one of pixels; it is
rounded to 8 bits, saved as PNG, and read back from there like any other picture. Several behaviours are attacked at
once, each with its own picture. Deviations: of a run, the picture with the lowest loss is taken, not the last; and, not
in the budget "paper", earlier pictures are tried besides it (`generations`), because the lowest loss on the target is
not the best answer; steps begin large and fade (`decay`); only the target's first tokens count (`target_tokens`): what
decides is whether the answer begins with them, and the others' slopes are noise (docs/log.md).
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy
import torch
from PIL import Image
from torch import Tensor

from rerouting.core.attempt import Attempt, ask, behaviour_of, opening_of
from rerouting.core.contracts import Resources
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write
from rerouting.core.prompts import reader_of
from rerouting.core.records import Chat
from rerouting.data.formatting import encode, render_prompt
from rerouting.models.memory import in_batches
from rerouting.models.pixels import PixelMap, pixel_map
from rerouting.models.target_rows import finite, target_rows
from rerouting.pictures.opening import open_picture
from rerouting.targets.target import Target
from rerouting.targets.target_loss import target_ids

POINTS = 20
"""Of the loss curve that is kept."""


@dataclass(frozen=True)
class ImagePgd:
    """White-box attack through the picture."""

    epsilon: float = 32
    """Furthest that a colour of a pixel moves, in 255ths."""
    steps: int = 300
    """Steps (the paper: 1,000)."""
    step_size: float = 8
    """How far a step moves every colour of every pixel, in 255ths; the first step, with `decay`."""
    decay: bool = True
    """Steps shrink on a straight line to nothing; false: all are as large as the first, as in the paper."""
    target_tokens: int | None = 3
    """Tokens of the target, from its first, that are optimised for; null for all, as in the paper."""
    momentum: float = 0.9
    """Share of the earlier steps' direction that is kept; 0 for plain PGD."""
    restarts: int = 1
    """Runs; the first starts at the picture itself, others anywhere in the ball."""
    generations: int = 3
    """Pictures of a run that are tried, evenly spread over its second half; each is an attempt of its own."""
    ending: str = ":\n\n"
    """What follows the target in what is optimised for, in place of its full stop or colon; "" for the bare target."""
    picture: str = "blank:336x336"
    """For behaviours without a picture of their own: a file, blank:WIDTHxHEIGHT, drawn:test/1, written:TEXT."""
    safety_prompt: str = ""
    """Said before every request: the paper's baseline defence under attack (attacks/safety_prompt.py has its words)."""
    batch: int = 64
    """Behaviours attacked at once, like lengths together; halves when memory runs out."""

    needs_images: ClassVar[bool] = True
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"steps": 60},
        "paper": {
            "steps": 1000,
            "generations": 1,
            "momentum": 0.0,
            "step_size": 1,
            "decay": False,
            "target_tokens": None,
            "ending": "",
        },
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 8, "standard": 48, "paper": None}

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """Several pictures a behaviour, in the order of their steps.

        Raises:
            UserError: the model takes no pictures, a behaviour has no target or several pictures, a number is out of
                range, or the processor's work cannot be followed.
        """
        tokens = 1 if self.target_tokens is None else self.target_tokens
        if min(self.steps, self.restarts, self.generations, tokens) < 1 or not 0 < self.step_size <= 255:
            raise UserError(
                f"cannot run {self.restarts} × {self.steps} steps of {self.step_size}/255",
                "give at least one restart, step, generation and target token, and a step_size above 0 and up to 255",
            )
        reader_of(target.tokenizer)
        jobs = [self._job(chat, target) for chat in chats]
        maps = {job.size: pixel_map(target.tokenizer.image_reader, job.size) for job in jobs}
        attempts: list[Attempt] = []
        for restart in range(self.restarts):
            for size, own in maps.items():
                same = sorted(
                    (job for job in jobs if job.size == size), key=lambda job: -len(job.chat.request)
                )
                descend = partial(self._descend, target, pixels=own, restart=restart, resources=resources)
                found = in_batches(descend, same, self.batch)
                for job, kept in zip(same, found, strict=True):
                    attempts += [self._attempt(job, one, own, target, resources.folder) for one in kept]
        places = {chat.id: at for at, chat in enumerate(chats)}
        return sorted(attempts, key=lambda attempt: places[attempt.chat.id])

    def _job(self, chat: Chat, target: Target) -> _Job:
        images = chat.images or (self.picture,)
        if len(images) > 1:
            raise UserError(f"{chat.id} has {len(images)} pictures", "give one to attack")
        wanted = target_ids(chat, target.tokenizer)
        if self.ending:
            wanted = encode(target.tokenizer, opening_of(chat.target or "", self.ending))
        if self.safety_prompt:
            chat = ask(chat, f"{self.safety_prompt}\n\n{behaviour_of(chat)}")
        opened = open_picture(images[0])
        return _Job(chat.with_images(images), wanted[: self.target_tokens], opened, opened.size)

    def _descend(
        self,
        target: Target,
        jobs: Sequence[_Job],
        pixels: PixelMap,
        restart: int,
        resources: Resources,
    ) -> list[list[_Kept]]:
        """The pictures that are to be tried, of each behaviour."""
        device, dtype = target.loaded.device, target.loaded.dtype
        size = (pixels.width, pixels.height)
        clean = torch.stack([_values(job.opened.resize(size)) for job in jobs]).to(device)
        blank = (f"blank:{size[0]}x{size[1]}",)
        prompts = [render_prompt(job.chat.with_images(blank), target.tokenizer) for job in jobs]
        rows = target_rows(prompts, [job.wanted for job in jobs], device)
        radius = self.epsilon / 255
        change = torch.zeros_like(clean)
        if restart:
            drawn = torch.stack([_noise(job.chat.id, restart, resources.seed, size) for job in jobs]).to(
                device
            )
            change = ((2 * drawn - 1) * radius + clean).clamp(0, 1) - clean
        more = self._types(target, prompts, rows.ids.shape[1], device)
        pace, states = torch.zeros_like(clean), [_Course() for _ in jobs]
        marks = self._marks()
        for step in range(self.steps + 1):
            seen = (clean + change).detach().requires_grad_(True)
            media = {
                name: item.to(dtype) if item.is_floating_point() else item
                for name, item in pixels(seen).items()
            }
            losses = rows.losses(target.model, media=media | more)
            for state, loss, picture in zip(states, losses.tolist(), seen.detach(), strict=True):
                state.see(step, loss, picture, step in marks)
            resources.progress(f"step {step} of {self.steps}, mean loss {fmean(losses.tolist()):.3f}")
            if step == self.steps:
                break
            (slope,) = torch.autograd.grad(losses.sum(), seen)
            size_of = slope.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-20)
            pace = self.momentum * pace + slope / size_of
            move = self.step_size / 255 * (1 - step / self.steps if self.decay else 1)
            change = (change - move * pace.sign()).clamp(-radius, radius)
            change = (clean + change).clamp(0, 1) - clean
        return [
            [
                _Kept(step, loss, _rounded(picture), _rounded(own), state.losses)
                for step, loss, picture in state.kept
            ]
            for state, own in zip(states, clean, strict=True)
        ]

    def _types(
        self, target: Target, prompts: Sequence[list[int]], width: int, device: torch.device
    ) -> dict[str, Tensor]:
        """Token types, where the family has them."""
        reader = target.tokenizer.image_reader
        found = reader.types(prompts, list(map(len, prompts)), width, left=False)
        return {name: item.to(device) for name, item in found.items()}

    def _marks(self) -> set[int]:
        """Steps at which a picture is kept: the last, and others of the second half."""
        half = self.steps / 2
        return {round(half + half * (at + 1) / self.generations) for at in range(self.generations)}

    def _attempt(self, job: _Job, kept: _Kept, pixels: PixelMap, target: Target, folder: Path) -> Attempt:
        data = io.BytesIO()
        Image.fromarray(kept.picture).save(data, "PNG")
        file = folder / "pictures" / f"{hashlib.sha256(data.getvalue()).hexdigest()[:16]}.png"
        atomic_write(file, data.getvalue())
        _check_round_trip(file, kept.picture, pixels, target)
        moved = numpy.abs(kept.picture.astype(int) - kept.clean.astype(int)).max()
        assert moved <= self.epsilon + 0.5, "the picture left the ball"
        every = max(1, self.steps // POINTS)
        trace = {
            "step": kept.step,
            "loss": finite(kept.loss),
            "first_loss": finite(kept.losses[0]),
            "losses": [finite(loss) for loss in kept.losses[::every]],
            "largest_change": int(moved),
            "clean": job.chat.images[0],
        }
        return Attempt(job.chat.with_images((str(file),)), trace=trace)


@dataclass(frozen=True)
class _Job:
    """A behaviour: its chat with one picture, the tokens that are wanted, the picture, and its size."""

    chat: Chat
    wanted: list[int]
    opened: Image.Image
    size: tuple[int, int]


@dataclass
class _Course:
    """What happens to one behaviour's picture: its losses, the best since the last mark, and what was kept."""

    losses: list[float] = field(default_factory=list)
    best: tuple[int, float, Tensor] | None = None
    kept: list[tuple[int, float, Tensor]] = field(default_factory=list)

    def see(self, step: int, loss: float, picture: Tensor, mark: bool) -> None:
        """Take in a step; at a mark the best picture since the last one is kept."""
        self.losses.append(loss)
        if self.best is None or loss <= self.best[1] or not math.isfinite(self.best[1]):
            self.best = (step, loss, picture.clone())
        if mark:
            self.kept.append(self.best)
            self.best = None


@dataclass(frozen=True)
class _Kept:
    """A picture to try: step, loss, 8-bit pixels (H, W, 3) changed and unchanged, and the run's losses."""

    step: int
    loss: float
    picture: Any
    clean: Any
    losses: list[float]


def _values(picture: Image.Image) -> Tensor:
    """Pixels (H, W, 3) from 0 to 1."""
    return torch.from_numpy(numpy.array(picture)).float() / 255


def _noise(name: str, restart: int, seed: int, size: tuple[int, int]) -> Tensor:
    """Where a restart begins, (H, W, 3) from 0 to 1: a behaviour's own, whatever else is in its batch."""
    key = int(hashlib.sha256(f"{seed}/{restart}/{name}".encode()).hexdigest()[:15], 16)
    return torch.rand(size[1], size[0], 3, generator=torch.Generator().manual_seed(key))


def _rounded(picture: Tensor) -> Any:
    """8-bit pixels (H, W, 3)."""
    return (picture.cpu() * 255).round().to(torch.uint8).numpy()


def _check_round_trip(file: Path, picture: Any, pixels: PixelMap, target: Target) -> None:
    """Refuse a picture that does not come back from its file as it went in, or that the processor changes."""
    again = open_picture(str(file))
    if not numpy.array_equal(numpy.array(again), picture):
        raise UserError(f"{file} does not hold the pixels that were written", "check the disk")
    found = target.tokenizer.image_reader.pixels(str(file)).float()
    wanted = pixels(torch.from_numpy(picture)[None].float() / 255)["pixel_values"].to(found)
    if found.shape != wanted.shape or float((found - wanted).abs().max()) > 0.25:
        raise UserError(f"the processor does not leave {file} as it is", "please report the model's name")
