"""Both losses of Representation Rerouting on one step's examples, each with its own backward passes.

Source: Zou et al. 2024, Algorithm 1. The reference model is the same model with its adapters disabled; blocks below the
first adapter run once for both. Sums over micro-batches are divided by the counts of the whole batch, so that 1×8
accumulation equals 8×1, and so do two processes with half of the batch each. The retain loss is taken layer by layer as
the adapted pass goes up, and each reference state gives way to the gradient that it causes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rerouting.core.errors import UserError
from rerouting.core.finder import build
from rerouting.data.formatting import Example
from rerouting.losses.geometry import cosine
from rerouting.models.lora import without_adapters
from rerouting.models.trunk import Key, Trunk
from rerouting.training.batching import Batch, collate, counted, micro_batches
from rerouting.training.config import LossConfig

Backward = Callable[[Tensor], None]


@dataclass
class Measures:
    """Sums over the tokens of one step; `mean` turns them into what is logged. They stay on the device until asked for.

    Attributes:
        tokens: selected tokens, which the losses see.
        passed: real tokens of the sequences.
        padding: positions of padding that went with them.
        common: of the real tokens, those that ran with another sequence's.
        total: the loss, a sum over micro-batches.
        sums: per-layer sums (L,) by name.
    """

    tokens: int = 0
    passed: int = 0
    padding: int = 0
    common: int = 0
    total: Tensor | float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The loss of the whole batch."""
        return float(self.total)

    def add(self, name: str, per_token: Tensor) -> None:
        """Add (L, N) values, kept per layer."""
        total = per_token.detach().sum(dim=-1, dtype=torch.float32)
        self.sums[name] = self.sums[name] + total if name in self.sums else total

    def settled(self, add_up: Callable[[Tensor], None]) -> Measures:
        """The same over all processes and on the host, in one message and one wait for the device.

        Args:
            add_up: replaces a tensor by its sum over all processes.
        """
        device = next(iter(self.sums.values())).device
        counted = [self.tokens, self.passed, self.padding, self.common]
        counts = torch.tensor(counted, dtype=torch.float32, device=device)
        flat = torch.cat([counts, torch.as_tensor(self.total, device=device)[None], *self.sums.values()])
        add_up(flat)
        sizes = [len(one) for one in self.sums.values()]
        head, *sums = torch.split(flat.cpu(), [5, *sizes])
        tokens, passed, padding, common = map(int, head[:-1].tolist())
        return Measures(
            tokens, passed, padding, common, float(head[-1]), dict(zip(self.sums, sums, strict=True))
        )

    def mean(self, name: str) -> list[float]:
        """Mean over tokens for each layer."""
        return [value / max(self.tokens, 1) for value in self.sums[name].tolist()]

    def overall(self, name: str) -> float:
        """Mean over tokens and layers."""
        each = self.mean(name)
        return sum(each) / len(each)


class Objective:
    """The rerouting and the retain loss over a trunk.

    Args:
        trunk: the blocks up to the last adapted one, of a model with adapters.
        config: losses, layers and weights.
        pad_id: token that fills a batch.
        padded_length: length to which the authors' code would pad (divisor of `over: padded`).
        micro_batch: sequences in one forward pass.
        packed: sequences one behind the other instead of padded; see `Trunk.packs`.
        once: common beginnings of packed sequences run once (`models.common_beginnings`). With dropout they would share
            its noise too.
        shared: blocks below the first adapter.
        places: mean states (L, D) of the base at the target layers, those that the rerouting loss needs.

    Raises:
        UserError: an unknown loss or option, options that exclude each other, or a place that is missing.
    """

    def __init__(
        self,
        trunk: Trunk,
        config: LossConfig,
        *,
        pad_id: int,
        padded_length: int,
        micro_batch: int,
        packed: bool = False,
        once: bool = False,
        shared: int = 0,
        places: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.trunk, self.config, self.pad_id = trunk, config, pad_id
        self.model: Any = trunk.model
        self.padded_length, self.micro_batch = padded_length, micro_batch
        self.packed, self.once, self.shared = packed, once, shared
        self.device = next(trunk.parameters()).device
        self.reroute_loss = build("losses.reroute", config.reroute)
        self.by_sequence: bool = getattr(self.reroute_loss, "by_sequence", False)
        self.places = _needed(self.reroute_loss, config.reroute.name, places or {})
        self.retain_loss = build("losses.retain", config.retain)
        self.over_padding = getattr(self.retain_loss, "over", "real") == "padded"
        self.per_sequence = config.retain_mean == "sequences"
        config.check_retain_mean(self.over_padding)
        # transformers' last hidden state is the normed one: the plain output of the top block is not among them
        everything = tuple(range(trunk.blocks + 1 - int(config.final_norm)))
        self.retain_layers = everything if config.retain_layers == "all" else config.target_layers

    def reroute(
        self,
        examples: Sequence[Example],
        coefficient: float,
        seed: int,
        backward: Backward | None,
        whole: Sequence[Example] | None = None,
    ) -> Measures:
        """Rerouting loss on circuit-breaker examples.

        Args:
            examples: of this step, or this process's share of them.
            coefficient: weight of the loss in the gradient.
            seed: of losses that draw.
            backward: adds the gradients; None for none.
            whole: the examples of the step in all processes, where these are but a share of them.
        """
        layers = self.config.target_layers
        batches, measures = self._batches(examples)
        tokens, _ = counted(whole or examples, self.config.skip_first_token)
        scale = 1 / (len(layers) * max(tokens, 1))
        for batch in batches:
            reference, below = self._reference(batch, layers)
            states = self._run(batch, layers, below=below)
            adapted = reference | {key: batch.pick(state) for key, state in states.items()}
            new = torch.stack([adapted[key] for key in layers])
            old = torch.stack([reference[key] for key in layers])
            del adapted, reference, states
            generator = torch.Generator().manual_seed(seed)
            loss = self.reroute_loss(new, old, generator, **self._more(batch)).sum() * scale
            if backward is not None:
                backward(coefficient * loss)
            measures.total = measures.total + loss.detach()
            with torch.no_grad():
                measures.add("cosine", cosine(new, old))
                measures.add("norm", new.float().norm(dim=-1))
        return measures

    def retain(
        self,
        examples: Sequence[Example],
        coefficient: float,
        backward: Backward | None,
        whole: Sequence[Example] | None = None,
    ) -> Measures:
        """Retain loss on retain examples; arguments as in `reroute`."""
        final_norm = self.config.final_norm
        batches, measures = self._batches(examples)
        keys: list[Key] = [*self.retain_layers, *(["norm"] if final_norm else [])]
        scale = 1 / (len(keys) * max(self._retain_divisor(whole or examples), 1))
        for batch in batches:
            weights = scale * batch.shares.to(self.device) if self.per_sequence else scale
            reference, below = self._reference(batch, self.retain_layers, final_norm)
            layerwise = _Layerwise(self.retain_loss, batch, reference, weights, backward is not None)
            self._run(batch, self._above(self.retain_layers), final_norm, seen=layerwise, below=below)
            loss = torch.stack(layerwise.losses).sum()
            if backward is not None:
                backward(coefficient * loss)
            measures.total = measures.total + loss.detach()
            zero = [torch.zeros((), device=loss.device)] * (len(keys) - len(layerwise.losses))
            for name, per_layer in layerwise.sums.items():
                measures.add(name, torch.stack([*zero, *per_layer])[:, None])
        return measures

    def _retain_divisor(self, whole: Sequence[Example]) -> int:
        """What the retain loss of a step is divided by, layers apart."""
        if self.over_padding:
            return self.padded_length * len(whole)
        tokens, sequences = counted(whole, self.config.skip_first_token)
        return sequences if self.per_sequence else tokens

    def _more(self, batch: Batch) -> dict[str, Any]:
        """What the rerouting loss asks for besides states and generator."""
        more: dict[str, Any] = {"sequences": batch.sequences} if self.by_sequence else {}
        if self.places:
            more["places"] = {name: place[:, None].to(self.device) for name, place in self.places.items()}
        return more

    def _batches(self, examples: Sequence[Example]) -> tuple[list[Batch], Measures]:
        """Micro-batches on the trunk's device, and what they hold."""
        skip, groups = self.config.skip_first_token, micro_batches(examples, self.micro_batch)
        options = (self.pad_id, skip, self.packed, self.device, self.trunk.reader, self.once)
        batches = [collate(group, *options) for group in groups]
        real = sum(len(example.ids) for example in examples)
        common = sum(batch.common for batch in batches)
        positions = sum(batch.input_ids.numel() for batch in batches) + common
        return batches, Measures(sum(batch.tokens for batch in batches), real, positions - real, common)

    def _above(self, layers: Sequence[int]) -> list[int]:
        """Layers that adapters can change."""
        return [layer for layer in layers if layer > self.shared] if self.shared else list(layers)

    def _run(
        self, batch: Batch, layers: Sequence[int], final_norm: bool = False, **more: Any
    ) -> dict[Key, Tensor]:
        states: dict[Key, Tensor] = self.trunk(
            batch.input_ids,
            batch.attention_mask,
            layers,
            with_final_norm=final_norm,
            packed=batch.layout,
            shared=self.shared,
            media=batch.media,
            **more,
        )
        return states

    @torch.no_grad()
    def _reference(
        self, batch: Batch, layers: Sequence[int], final_norm: bool = False
    ) -> tuple[dict[Key, Tensor], Tensor | None]:
        """States (n, D) of the selected tokens without adapters, and all states below the first adapter."""
        states: dict[Key, Tensor] = {}
        below: list[Tensor] = []

        def seen(key: Key, state: Tensor) -> None:
            if key in wanted:
                states[key] = batch.pick(state)
            if self.shared and key == self.shared:
                below.append(state)

        wanted = {*layers, *(["norm"] if final_norm else [])}
        with without_adapters(self.model):
            run = sorted({*layers, self.shared}) if self.shared else layers
            self._run(batch, run, final_norm, seen=seen)
        return states, below[0] if below else None


def _needed(loss: Any, name: str, places: Mapping[str, Tensor]) -> dict[str, Tensor]:
    wanted = getattr(loss, "places", ())
    missing = [place for place in wanted if place not in places]
    if missing:
        raise UserError(
            f"the rerouting loss {name} needs the place {missing[0]}, which was not measured",
            "train with `rerouting train`, which measures places, or give them to `train`",
        )
    return {place: places[place].float() for place in wanted}


class _Layerwise:
    """The retain loss of each layer at the moment when the adapted pass reaches it."""

    def __init__(
        self, loss: Any, batch: Batch, reference: dict[Key, Tensor], weights: Tensor | float, training: bool
    ) -> None:
        self.loss, self.batch, self.reference = loss, batch, reference
        self.weights, self.training = weights, training
        self.losses: list[Tensor] = []
        self.sums: dict[str, list[Tensor]] = {"distance": [], "relative": []}

    def __call__(self, key: Key, state: Tensor) -> None:
        old, new = self.reference.pop(key), self.batch.pick(state.detach())
        with torch.set_grad_enabled(self.training):
            new.requires_grad_(self.training)
            each, scale = self.loss(new[None], old[None]), self.weights
            loss = (each * scale).sum() if isinstance(scale, Tensor) else each.sum() * scale
        if self.training and loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, new)
            self.losses.append(_Known.apply(state, loss.detach(), gradient, self.batch.selected))  # type: ignore[no-untyped-call]
        else:
            self.losses.append(loss.detach())
        with torch.no_grad():
            distance = torch.linalg.vector_norm(new - old, dim=-1, dtype=torch.float32)
            length = torch.linalg.vector_norm(old, dim=-1, dtype=torch.float32).clamp_min(1e-6)
            self.sums["distance"].append(distance.sum())
            self.sums["relative"].append((distance / length).sum())


class _Known(torch.autograd.Function):
    """A loss of states (B, T, D) whose value and gradient (n, D) at the selected tokens are known already."""

    @staticmethod
    def forward(ctx: Any, state: Tensor, loss: Tensor, gradient: Tensor, selected: Tensor | None) -> Tensor:
        ctx.save_for_backward(gradient, selected)
        ctx.shape = state.shape
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradient, selected = ctx.saved_tensors
        gradient = gradient * grad.to(gradient.dtype)
        if selected is not None:
            whole = gradient.new_zeros(ctx.shape[0] * ctx.shape[1], gradient.shape[1])
            gradient = whole.index_copy_(0, selected, gradient)
        return gradient.view(ctx.shape), None, None, None
