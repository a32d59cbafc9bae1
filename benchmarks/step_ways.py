"""The ways to make a training step that train_step.py compares, and the gate that holds them to one result.

`authors_step` is independent: it shares with the package the examples, the frozen weights and LoRA's options, no code.
`ours_step` is the package's step, and the one function here that knows its interface. Of the authors' code
(github.com/GraySwanAI/circuit-breakers), as far as it is known to us, come: truncation, sides of the padding, order of
the passes, losses, `eval` and `train`, one backward pass. Its validation at every tenth step is left out.
"""

from __future__ import annotations

import copy
import itertools
import random
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import peft
import torch
from torch import Tensor, nn

from rerouting.core.finder import Component
from rerouting.data.formatting import Example
from rerouting.models.config import LoraConfig
from rerouting.models.lean import WAYS, lean
from rerouting.models.lora import adapter_parameters, add_lora, first_adapted, train_adapters
from rerouting.models.trunk import Trunk
from rerouting.training.config import LossConfig, OptimConfig
from rerouting.training.objective import Objective
from rerouting.training.processes import Processes
from rerouting.training.step import Draw, Stepper

AUTHORS, NO_HEAD, LONGEST, OURS = "authors", "no head", "no head, longest", "ours"
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4


@dataclass(frozen=True)
class Setting:
    """What all ways share.

    Attributes:
        targets: layers that are rerouted, as in `hidden_states`.
        blocks: blocks with adapters, from 0 on: one more than the top target, as in the paper.
        pad: lengths to which circuit-breaker prompts, their responses, and retain text are padded.
        lora: the adapters.
        micro_batch: sequences that go through our model at once.
        attention: implementation of the padded ways.
        pad_id: fills them; not 0, whose embedding can be the zero vector, which the authors' cosine turns into NaN.
        weights: of the rerouting and the retain loss (α = 10, a quarter of the way).
    """

    targets: tuple[int, ...]
    blocks: int
    pad: tuple[int, int, int]
    lora: LoraConfig
    micro_batch: int = 8
    attention: str = "sdpa"
    pad_id: int = 2
    weights: tuple[float, float] = (8.75, 1.25)


@dataclass(frozen=True)
class Examples:
    """What one step sees."""

    harmful: list[Example]
    retain: list[Example]

    @property
    def tokens(self) -> int:
        """Real tokens of both streams."""
        return sum(len(one.ids) for one in (*self.harmful, *self.retain))


@dataclass
class Way:
    """One way to make a step.

    Attributes:
        model: with adapters; the frozen weights are shared with all other ways.
        gradients: adds those of both losses; gives the two losses.
        kept: what is switched on as long as the way is there.
    """

    model: nn.Module
    gradients: Callable[[Examples, int], tuple[float, float]]
    kept: ExitStack | None = None
    optimizer: torch.optim.AdamW = field(init=False)
    trained: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.trained = list(self.adapters().values())
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, weight_decay=0.0, fused=True)

    def adapters(self) -> dict[str, nn.Parameter]:
        """All that is trained, by name."""
        return {name: item for name, item in self.model.named_parameters() if item.requires_grad}

    def start_as(self, other: Way) -> None:
        """Take over another way's adapters."""
        own, others = self.adapters(), other.adapters()
        assert own.keys() == others.keys(), "not the same adapters"
        with torch.no_grad():
            for name, item in own.items():
                item.copy_(others[name])

    def step(self, examples: Examples, seed: int) -> tuple[float, float]:
        """A whole step; gives the two losses."""
        losses = self.gradients(examples, seed)
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return losses


def sharing_copy(model: nn.Module) -> Any:
    """The modules copied, their tensors not."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


ABLATIONS = ("packing", *WAYS, "micro_batches", "kept_activations")
"""Names of what `ours_step` can leave out, as {"packing": False}; without kept activations blocks are run again."""


def ours_step(base: nn.Module, setting: Setting, on: dict[str, bool]) -> Way:
    """The package's step, put together as `training.loop.train` does it; `on` switches changes off by name."""
    on = dict.fromkeys(ABLATIONS, True) | on
    model = add_lora(sharing_copy(base).eval(), setting.lora, setting.blocks - 1, seed=1)
    trunk, parameters = Trunk(model, setting.blocks), adapter_parameters(model)
    losses = LossConfig(
        target_layers=setting.targets,
        reroute=Component("cosine"),
        retain=Component("l2", {"over": "padded"}),
        final_norm=True,
    )
    if on["packing"] and (why := trunk.packs([[3, 4, 5], [6, 7]])):
        sys.exit(f"ours does not pack this model: {why}")
    objective = Objective(
        trunk,
        losses,
        pad_id=setting.pad_id,
        padded_length=setting.pad[2],
        micro_batch=setting.micro_batch if on["micro_batches"] else sys.maxsize,
        packed=on["packing"],
        shared=first_adapted(model),
    )
    kept = ExitStack()  # as long as the way
    ways = kept.enter_context(lean(model, next((name for name in WAYS if not on[name]), "")))
    autocast = trunk.dtype is torch.bfloat16 and ways.get("adapters", 0) < len(parameters) // 2
    optim = OptimConfig(recompute=not on["kept_activations"])
    stepper = Stepper(objective, optim, Processes(), autocast=autocast)

    def gradients(examples: Examples, seed: int) -> tuple[float, float]:
        torch.manual_seed(seed)
        train_adapters(model, True)
        draw = Draw(examples.harmful, examples.retain, *setting.weights, seed)
        rerouted, retained = stepper.gradients(draw)
        train_adapters(model, False)
        return rerouted.loss, retained.loss

    return Way(model, gradients, kept)


def authors_step(base: nn.Module, setting: Setting, head: bool = True, fixed: bool = True) -> Way:
    """Algorithm 1 as the authors' code runs it; see the module's docstring."""
    model = sharing_copy(base)
    model.model.layers = model.model.layers[: setting.blocks]
    model.config.num_hidden_layers = setting.blocks
    model.set_attn_implementation(setting.attention)
    model.activation_checkpointing_enable()
    model.enable_input_require_grads()
    lora = setting.lora
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # of what PEFT calls
    model = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=LINEARS,
            layers_to_transform=list(range(setting.blocks)),
            task_type="CAUSAL_LM",
        ),
    )
    network = model if head else model.get_base_model().model
    weight, targets = next(base.parameters()), setting.targets
    device, mixed = weight.device, weight.dtype is torch.bfloat16

    def hidden(ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = network(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        return found

    def gradients(examples: Examples, seed: int) -> tuple[float, float]:
        torch.manual_seed(seed)
        pad = setting.pad if fixed else _longest(examples)
        harmful = _padded_twice(examples.harmful, pad[0], pad[1], setting.pad_id, device)
        retain = _padded_left(examples.retain, pad[2], setting.pad_id, device)
        real, counted = retain[1][None, :, :, None], harmful[1].expand(len(targets), -1, -1)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            model.eval()
            with torch.no_grad(), model.disable_adapter():
                old_retain = torch.stack(hidden(*retain)) * real
                old_harmful = _chosen(hidden(*harmful), targets)
            model.train()
            new_retain = torch.stack(hidden(*retain)) * real
            distance = torch.norm(new_retain - old_retain, dim=-1, p=2, dtype=torch.float)
            # the divisor is that of the fixed length, so that all ways have one loss
            retain_loss = distance.nanmean() * (pad[2] / setting.pad[2])
            new_harmful = _chosen(hidden(*harmful), targets)
            cosine = (_unit(new_harmful) * _unit(old_harmful)).sum(-1) * counted
            reroute_loss = torch.relu(cosine).sum() / counted.sum()
        (setting.weights[0] * reroute_loss + setting.weights[1] * retain_loss).backward()
        return reroute_loss.item(), retain_loss.item()

    return Way(model, gradients)


def _chosen(states: Sequence[Tensor], layers: Sequence[int]) -> Tensor:
    return torch.stack([states[layer] for layer in layers])


def _unit(states: Tensor) -> Tensor:
    return states / torch.norm(states, dim=-1, keepdim=True, dtype=torch.float)


def _longest(examples: Examples) -> tuple[int, int, int]:
    return (
        max(one.n_prompt for one in examples.harmful),
        max(len(one.ids) - one.n_prompt for one in examples.harmful),
        max(len(one.ids) for one in examples.retain),
    )


def _padded_twice(
    batch: Sequence[Example], prompt: int, response: int, pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, prompt + response): padding before the prompt and after the response."""
    ids = torch.full((len(batch), prompt + response), pad_id)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(batch):
        assert one.n_prompt <= prompt and len(one.ids) - one.n_prompt <= response
        start = prompt - one.n_prompt
        ids[row, start : start + len(one.ids)] = torch.tensor(one.ids)
        mask[row, start : start + len(one.ids)] = 1
    return ids.to(device), mask.to(device)


def _padded_left(
    batch: Sequence[Example], total: int, pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, total): padding before the text."""
    return _padded_twice([replace(one, n_prompt=len(one.ids)) for one in batch], total, 0, pad_id, device)


def random_example(draw: random.Random, vocabulary: int, prompt: int, response: int) -> Example:
    """Random ids, of which every one counts for the loss."""
    ids = tuple(draw.randrange(3, vocabulary) for _ in range(prompt + response))
    return Example(ids, prompt, (True,) * len(ids))


def gate(base: nn.Module, setting: Setting, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Largest relative differences of each way from "authors" in float32; refuses if one is too large.

    Args:
        base: float32 model without adapters.
        setting: targets and blocks of that model; dropout and B are set here.
        names: ways to try.
    """
    pad = (24, 24, 48)
    lora = replace(setting.lora, dropout=0.0, init_b_std=0.05)
    setting = replace(setting, lora=lora, pad=pad, micro_batch=2)
    vocabulary, draw = base.get_input_embeddings().num_embeddings, random.Random(3)
    examples = Examples(
        [random_example(draw, vocabulary, *lengths) for lengths in ((24, 24), (7, 22), (15, 3))],
        [random_example(draw, vocabulary, *lengths) for lengths in ((20, 28), (9, 5), (3, 30))],
    )
    authors, start = make(base, setting, AUTHORS), make(base, setting, OURS)
    authors.start_as(start)
    expected = authors.gradients(examples, 0)
    wanted = {key: item.grad for key, item in authors.adapters().items()}
    assert min(expected) > 0 and all(one is not None and bool(one.any()) for one in wanted.values())
    found: dict[str, dict[str, float]] = {}
    for name in names:
        if name == AUTHORS:
            continue
        way = make(base, setting, name)
        way.start_as(start)
        losses = way.gradients(examples, 0)
        gradients = {key: item.grad for key, item in way.adapters().items()}
        ours, theirs = torch.tensor(losses), torch.tensor(expected)
        loss = float(((ours - theirs) / theirs).abs().max())
        apart = [(gradients[key] - one).norm() / one.norm() for key, one in wanted.items()]
        gradient = float(torch.stack(apart).max())  # NaN if any is
        found[name] = {"loss": loss, "gradient": gradient}
        if not (loss <= LOSS_TOLERANCE and gradient <= GRADIENT_TOLERANCE):
            sys.exit(
                f"no parity, nothing timed: {name} differs by {loss:.1e} (loss), {gradient:.1e} (gradient)"
            )
    return found


def make(base: nn.Module, setting: Setting, name: str) -> Way:
    """A way by its name."""
    if name == AUTHORS:
        return authors_step(base, setting)
    if name in (NO_HEAD, LONGEST):
        return authors_step(base, setting, head=False, fixed=name == NO_HEAD)
    return ours_step(base, setting, {} if name == OURS else {name.removeprefix("ours without "): False})
