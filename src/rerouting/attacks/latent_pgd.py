"""Hidden states of the prompt are perturbed towards the target, within a ball (latent adversarial attack).

Source: Casper et al. 2024, arXiv 2403.05030, and Sheshadri et al. 2024, arXiv 2407.15549, who train against it:
projected gradient steps on the residual stream at chosen layers. The perturbation lies at the prompt's positions
only, in an L2 ball around each token's state, and stays in place while the model answers. Deviations: one
perturbation a behaviour instead of one in a training batch; the radius is a share of the token's own norm, but of
at most the median of its prompt's (attention sinks have norms a hundred times larger); signed steps; the best step
is used instead of the last.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save
from torch import Tensor

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.files import atomic_write
from rerouting.core.records import Chat
from rerouting.models.layers import decoder_blocks, unwrapped
from rerouting.models.memory import in_batches
from rerouting.models.steering_hooks import changed_layer, plus, resolved_layers
from rerouting.models.target_rows import TargetRows, finite, target_rows
from rerouting.targets.target import Target
from rerouting.targets.target_loss import target_ids

Deltas = dict[int, Tensor]


@dataclass(frozen=True)
class _Found:
    """One behaviour's perturbation (T, D) of each layer, float32 on the CPU, and its losses by step."""

    deltas: Deltas
    losses: list[float]


@dataclass(frozen=True)
class LatentPgd:
    """White-box perturbation of hidden states."""

    layers: list[float] = field(default_factory=lambda: [0.25])
    """Where: shares of the depth (below 1) or layers (1 is the first block's output)."""
    epsilon: float = 0.1
    """Radius of the ball, as a share of the token's norm."""
    steps: int = 20
    """Most gradient steps."""
    step: float = 0.25
    """Length of a step, as a share of the radius."""
    stop_below: float = 0.05
    """Loss in nats a token at which a batch ends, once every behaviour in it is there."""
    batch: int = 8
    """Behaviours optimised at once; halves when memory runs out."""

    group: ClassVar[int] = 16
    tampers: ClassVar[bool] = True
    budgets: ClassVar[dict[str, dict[str, Any]]] = {"quick": {"steps": 10}, "paper": {"steps": 64}}
    cases: ClassVar[dict[str, int | None]] = {"quick": 8, "standard": 24, "paper": None}

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """The plain requests, answered over perturbed prompts, which are kept in `perturbations/` of the folder.

        Raises:
            UserError: a behaviour has no target, or a layer is not the model's.
        """
        attempts = [Attempt(chat) for chat in chats]
        prompts = [target.prompt_ids(attempt) for attempt in attempts]
        pairs = [(ids, target_ids(chat, target.tokenizer)) for ids, chat in zip(prompts, chats, strict=True)]
        layers = resolved_layers(self.layers, len(decoder_blocks(target.model)))
        search = partial(self._search, target.model, target.loaded.device, layers, told=resources.progress)
        found = in_batches(search, pairs, self.batch)
        traced = [
            Attempt(chat, trace=self._trace(one, layers) | _saved(one.deltas, resources.folder))
            for chat, one in zip(chats, found, strict=True)
        ]
        return _answers(target, traced, prompts, [one.deltas for one in found])

    def _trace(self, found: _Found, layers: list[int]) -> dict[str, Any]:
        best = min(found.losses)
        return {
            "layers": layers,
            "first_loss": finite(found.losses[0]),
            "best_loss": finite(best),
            "steps": len(found.losses) - 1,
            "reached_stop": best < self.stop_below,
        }

    def _search(
        self,
        model: Any,
        device: torch.device,
        layers: list[int],
        pairs: Sequence[tuple[list[int], list[int]]],
        told: Callable[[str], None] = lambda line: None,
    ) -> list[_Found]:
        prompts, wanted = zip(*pairs, strict=True)
        rows = target_rows(prompts, wanted, device)
        media = rows.media(model, prompts)
        radii = _radii(model, rows, media, layers, self.epsilon)
        deltas = {layer: torch.zeros_like(radii[layer][0]) for layer in layers}
        best, losses = dict(deltas), torch.empty(0, len(pairs))
        for step in range(self.steps + 1):
            last = step == self.steps
            told(f"step {step} of at most {self.steps}, {len(pairs)} behaviours")
            loss, slopes = _slopes(model, rows, media, deltas, last)
            losses = torch.cat([losses, loss[None]])
            better = (loss <= losses.min(dim=0).values).to(device)[:, None, None]
            best = {layer: torch.where(better, deltas[layer], best[layer]) for layer in layers}
            if last or bool((losses.min(dim=0).values < self.stop_below).all()):
                break
            deltas = {layer: self._moved(deltas[layer], slopes[layer], radii[layer][1]) for layer in layers}
        return [
            _Found(
                {layer: best[layer][row, :length].cpu() for layer in layers},
                losses[:, row].tolist(),
            )
            for row, length in enumerate(rows.prompts)
        ]

    def _moved(self, delta: Tensor, slope: Tensor, radius: Tensor) -> Tensor:
        """One signed step and back into the ball: delta and slope (B, T, D), radius (B, T, 1)."""
        moved = delta - self.step * radius * torch.sign(slope) / slope.shape[-1] ** 0.5
        length = moved.norm(dim=-1, keepdim=True)
        shrink: Tensor = (radius / length.clamp_min(1e-12)).clamp_max(1.0)
        inside: Tensor = moved * shrink
        return inside


def _slopes(
    model: Any, rows: TargetRows, media: Mapping[str, Tensor], deltas: Deltas, last: bool
) -> tuple[Tensor, Deltas]:
    """Loss (B,) on the CPU, and its gradient over each layer's perturbation; none on the last step."""
    with torch.set_grad_enabled(not last), ExitStack() as stack:
        leaves = {layer: delta.detach().requires_grad_(not last) for layer, delta in deltas.items()}
        for layer, leaf in leaves.items():
            stack.enter_context(changed_layer(model, layer, partial(plus, leaf)))
        losses = rows.losses(model, media=media)
        if last:
            return losses.cpu(), {}
        slopes = torch.autograd.grad(losses.sum(), list(leaves.values()))
    return losses.detach().cpu(), dict(zip(leaves, slopes, strict=True))


@torch.no_grad()
def _radii(
    model: Any, rows: TargetRows, media: Mapping[str, Tensor], layers: Sequence[int], epsilon: float
) -> dict[int, tuple[Tensor, Tensor]]:
    """States (B, T, D) in float32 and radius (B, T, 1) of each layer; the radius is 0 outside of the prompt."""
    found: Deltas = {}

    def seen(layer: int, states: Tensor) -> Tensor:
        found[layer] = states
        return states

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(changed_layer(model, layer, partial(seen, layer)))
        rows.losses(model, media=media)
    radii = {}
    for layer in layers:
        states = found[layer].float()
        norms = states.norm(dim=-1).masked_fill(~rows.prompt_mask, float("nan"))
        limit = norms.nanmedian(dim=1, keepdim=True).values
        radii[layer] = (states, epsilon * torch.minimum(norms, limit).nan_to_num(0.0)[..., None])
    return radii


def _saved(deltas: Deltas, folder: Path) -> dict[str, str]:
    """Keep one behaviour's perturbation, (T, D) by layer, under its hash; returns the file's name for the trace."""
    data = save({str(layer): delta.contiguous() for layer, delta in deltas.items()})
    name = f"perturbations/{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
    atomic_write(folder / name, data)
    return {"perturbation": name}


def _answers(
    target: Target, attempts: list[Attempt], prompts: Sequence[list[int]], deltas: Sequence[Deltas]
) -> list[Attempt]:
    """Answer all attempts; equal prompts with perturbations of their own go into rounds of their own."""
    seen: Counter[tuple[int, ...]] = Counter()
    rounds: dict[int, list[int]] = {}
    for at, ids in enumerate(prompts):
        rounds.setdefault(seen[tuple(ids)], []).append(at)
        seen[tuple(ids)] += 1
    for places in rounds.values():
        with _kept(target.model, {tuple(prompts[at]): deltas[at] for at in places}):
            answers = target.answer([attempts[at] for at in places])
        for at, answer in zip(places, answers, strict=True):
            attempts[at] = attempts[at].answered(answer)
    return attempts


@contextmanager
def _kept(model: Any, by_prompt: dict[tuple[int, ...], Deltas]) -> Iterator[None]:
    """Within this context every pass over whole prompts has their perturbations; rows are known by their tokens."""
    current: Deltas = {}

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        current.clear()
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        if ids.shape[1] == 1:
            return  # one new token after a cached prompt
        if mask is None:  # transformers leaves out a mask that masks nothing
            mask = torch.ones_like(ids)
        rows = [by_prompt[tuple(row[real.bool()].tolist())] for row, real in zip(ids, mask, strict=True)]
        for layer in rows[0]:
            added = torch.zeros(*ids.shape, rows[0][layer].shape[1], device=ids.device)
            for row, deltas in enumerate(rows):
                added[row, ids.shape[1] - len(deltas[layer]) :] = deltas[layer]
            current[layer] = added

    def change(layer: int, states: Tensor) -> Tensor:
        return plus(current[layer], states) if layer in current else states

    with ExitStack() as stack:
        stack.callback(unwrapped(model).register_forward_pre_hook(look, with_kwargs=True).remove)
        for layer in next(iter(by_prompt.values())):
            stack.enter_context(changed_layer(model, layer, partial(change, layer)))
        yield
