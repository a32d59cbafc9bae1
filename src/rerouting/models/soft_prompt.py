"""Soft tokens between fixed ones, optimised by gradient descent for several behaviours at once.

Each behaviour is a row of its own: its own loss, its own best step, its own stop; rows that have stopped leave the
batch. The soft tokens are float32 whatever the model's dtype, and so are losses and updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from rerouting.core.prompts import Prompt
from rerouting.models.images import input_embeddings
from rerouting.models.memory import in_batches
from rerouting.models.target_rows import finite, target_rows


@dataclass(frozen=True)
class SoftProblem:
    """One behaviour: token ids around a slot, what the slot starts from, what is wanted after all of it.

    Pictures, if any, stand before the slot.
    """

    before: tuple[int, ...]
    start: tuple[int, ...]
    after: tuple[int, ...]
    wanted: tuple[int, ...]
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Descent:
    """How the soft tokens (S, D) of a row are moved.

    Attributes:
        update: what is subtracted, from the gradient (S, D).
        steps: most updates.
        stop_below: loss in nats a token at which a row ends; None for never.
        keep: asked at every step, after its loss is noted: is a copy of this step kept?
        enough: kept copies with which a row ends; None for no such end.
    """

    update: Callable[[Tensor], Tensor]
    steps: int
    stop_below: float | None = None
    keep: Callable[[Found], bool] = lambda found: False
    enough: int | None = None

    def ends(self, found: Found) -> bool:
        """Whether a row is finished; nothing comes after NaN."""
        loss = found.losses[-1]
        low = self.stop_below is not None and loss < self.stop_below
        return low or math.isnan(loss) or (self.enough is not None and len(found.kept) >= self.enough)


@dataclass
class Found:
    """What came of one row.

    Attributes:
        losses: before the first update, after it, and so on, in nats a token.
        best: whole prompt (T, D) at the lowest loss, float32 on the CPU.
        best_step: number of updates before it.
        kept: whole prompts by the number of updates before them.
    """

    losses: list[float] = field(default_factory=list)
    best: Tensor = field(default_factory=lambda: torch.empty(0))
    best_step: int = 0
    kept: dict[int, Tensor] = field(default_factory=dict)

    @property
    def trace(self) -> dict[str, Any]:
        """Losses and steps for the record."""
        return {
            "first_loss": finite(self.losses[0]),
            "best_loss": finite(min(self.losses)),
            "steps": len(self.losses) - 1,
        }


def optimise(
    model: Any,
    problems: Sequence[SoftProblem],
    descent: Descent,
    batch: int,
    told: Callable[[str], None] = lambda line: None,
) -> list[Found]:
    """Move the soft tokens of every problem; batches halve when memory runs out.

    Args:
        model: causal language model, frozen.
        problems: their slots may differ in length.
        descent: see there.
        batch: most problems at once.
        told: called with a short line at every step.

    Raises:
        UserError: memory is too small for one problem, or pictures cannot be given as embeddings.
    """
    order = sorted(range(len(problems)), key=lambda at: -_length(problems[at]))  # like lengths together
    found = in_batches(
        lambda rows: _optimise(model, rows, descent, told), [problems[at] for at in order], batch
    )
    by_place = dict(zip(order, found, strict=True))
    return [by_place[at] for at in range(len(problems))]


def table_sample(model: Any) -> Tensor:
    """About 4,096 embeddings as the model sees them, spread evenly over the vocabulary, float32 (N, D).

    What sizes of steps are measured by; Gemma's table multiplies what it gives out by the root of the width.
    """
    table = model.get_input_embeddings()
    ids = torch.arange(0, len(table.weight), max(1, len(table.weight) // 4096), device=table.weight.device)
    rows: Tensor = table(ids).detach().float()
    return rows


def _length(problem: SoftProblem) -> int:
    return sum(map(len, (problem.before, problem.start, problem.after, problem.wanted)))


def _optimise(
    model: Any, problems: Sequence[SoftProblem], descent: Descent, told: Callable[[str], None]
) -> list[Found]:
    table = model.get_input_embeddings()
    device = table.weight.device
    soft = [table(torch.tensor(one.start, device=device)).detach().float() for one in problems]
    found = [Found() for _ in problems]
    alive = list(range(len(problems)))
    batch = _Batch(model, [problems[at] for at in alive])
    for step in range(descent.steps + 1):
        losses, slopes = batch.slopes([soft[at] for at in alive], last=step == descent.steps)
        for at, loss, prompt in zip(alive, losses, batch.prompts([soft[at] for at in alive]), strict=True):
            found[at].losses.append(loss)
            if step == 0 or loss <= min(found[at].losses):
                found[at].best, found[at].best_step = prompt, step
            if descent.keep(found[at]):
                found[at].kept[step] = prompt
        told(f"step {step} of at most {descent.steps}, {len(alive)} left, mean loss {fmean(losses):.3f}")
        going = [row for row, at in enumerate(alive) if not descent.ends(found[at])]
        if not going or step == descent.steps:
            break
        for row in going:
            soft[alive[row]] = soft[alive[row]] - descent.update(slopes[row])
        if len(going) < len(alive):
            alive = [alive[row] for row in going]
            batch = _Batch(model, [problems[at] for at in alive])
    return found


class _Batch:
    """The fixed parts of several problems, padded on the right."""

    def __init__(self, model: Any, problems: Sequence[SoftProblem]) -> None:
        table = model.get_input_embeddings()
        self.model, self.problems = model, problems
        prompts = [Prompt((*one.before, *one.start, *one.after), one.images) for one in problems]
        self.rows = target_rows(prompts, [one.wanted for one in problems], table.weight.device)
        self.fixed = input_embeddings(model, self.rows.ids, self.rows.mask, self.rows.media(model, prompts))

    def slopes(self, soft: Sequence[Tensor], last: bool) -> tuple[list[float], Sequence[Tensor]]:
        """Loss and gradient (S, D) of each row; no gradient on the last step."""
        with torch.set_grad_enabled(not last):
            leaves = [one.detach().requires_grad_(not last) for one in soft]
            losses = self.rows.losses(self.model, self._filled(leaves))
            slopes = () if last else torch.autograd.grad(losses.sum(), leaves)
        return losses.tolist(), slopes

    def prompts(self, soft: Sequence[Tensor]) -> list[Tensor]:
        """Whole prompts (T, D), float32 on the CPU."""
        whole = []
        for row, (one, values) in enumerate(zip(self.problems, soft, strict=True)):
            before, end = len(one.before), self.rows.prompts[row]
            behind = self.fixed[row, before + len(one.start) : end]
            whole.append(torch.cat([self.fixed[row, :before].float(), values.detach(), behind.float()]).cpu())
        return whole

    def _filled(self, soft: Sequence[Tensor]) -> Tensor:
        """Input embeddings (B, T, D) with the soft tokens in their slots."""
        filled = []
        for row, (one, values) in enumerate(zip(self.problems, soft, strict=True)):
            start, end = len(one.before), len(one.before) + len(one.start)
            fixed = self.fixed[row]
            filled.append(torch.cat([fixed[:start], values.to(fixed.dtype), fixed[end:]]))
        return torch.stack(filled)
