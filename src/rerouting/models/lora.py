"""LoRA adapters in all linear layers of decoder blocks 0..k: placed, checked, saved, loaded.

"All linear layers" (the paper, section 4) is read from the model and not from a list of names: every
`nn.Linear` and `Conv1D` (GPT-2) inside the blocks, so fused projections count, plus the stacked expert
weights of mixture-of-experts models, which transformers 5 keeps as bare 3-D parameters. Honest limits for
those: PEFT adds the update to the expert weights themselves, so experts get no LoRA dropout (other layers
keep theirs), A and B of all experts of a block lie in one pair of tensors (an expert that saw no token stays
where it was, and `unmoved` cannot tell), and a forward pass computes the whole updated stack. Routers, also
bare parameters, stay frozen: the paper's models have none, and moving them changes *which* expert answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rerouting.core.errors import UserError
from rerouting.models.adapter_files import load_adapter, save_adapter, unharmed
from rerouting.models.config import LoraConfig
from rerouting.models.layers import BlockList, decoder_blocks, unwrapped

__all__ = [
    "adapted_names",
    "adapter_copy",
    "adapter_parameters",
    "add_lora",
    "block_targets",
    "check_trained",
    "first_adapted",
    "load_adapter",
    "save_adapter",
    "unmoved",
    "without_gradient",
]

ADAPTER = "default"


def add_lora(
    model: nn.Module, config: LoraConfig, last_block: int, override: str | None = None, seed: int = 0
) -> peft.PeftModel:
    """Put LoRA adapters into every linear layer of decoder blocks `config.first_block`..last_block.

    Adapter weights are float32 whatever the model's dtype; all else is frozen. Same seed, same weights.

    Args:
        model: causal language model without adapters; changed in place.
        config: rank, scale, dropout and initial B.
        last_block: index, from 0, of the last block with adapters (inclusive).
        override: dotted path of the block list, as in `decoder_blocks`.
        seed: of the initial A and B.

    Raises:
        UserError: the model has fewer blocks, already has adapters, or the blocks hold no linear layer.
    """
    if isinstance(model, peft.PeftModel):
        raise UserError("the model already has adapters", "load it without them, or merge them first")
    found = decoder_blocks(model, override)
    if not 0 <= config.first_block <= last_block:
        raise UserError(
            f"adapters from block {config.first_block} to {last_block} were asked for",
            "choose a lora.first_block from 0 to the last block with adapters",
        )
    if not last_block < len(found):
        raise UserError(
            f"adapters up to block {last_block} were asked for, but the model has {len(found)} blocks",
            f"choose a last block from 0 to {len(found) - 1}",
        )
    linears, experts = _targets(found, config.first_block, last_block)
    if not linears and not experts:
        raise UserError(
            f"blocks {config.first_block} to {last_block} at {found.path} hold no linear layer",
            "check model.blocks",
        )
    modules, was_training = dict(unwrapped(model).named_modules()), model.training
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0 if experts else config.dropout,
        target_modules=linears if experts else _pattern(found.path, linears),
        target_parameters=experts or None,
        fan_in_fan_out=bool(linears) and all(isinstance(modules[name], Conv1D) for name in linears),
        task_type="CAUSAL_LM",
    )
    with unharmed(model):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            adapted = peft.get_peft_model(model, settings)
        _set_dropout(adapted, config.dropout)
        _draw_b(adapted, config.init_b_std, seed)
        _check_placed(adapted, {*linears, *experts})
    adapted.train(was_training)
    return adapted


def adapted_names(model: nn.Module) -> set[str]:
    """Full names, in the model without wrapper, of the modules and parameters that carry an adapter."""
    names = set()
    for name, module in unwrapped(model).named_modules():
        if isinstance(module, ParamWrapper):
            names.add(f"{name.replace('.base_layer', '')}.{module.parameter_name}")
        elif isinstance(module, LoraLayer):
            names.add(name)
    return names


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All A and B matrices of the adapters, by full name."""
    return {name: item for name, item in model.named_parameters() if ".lora_A." in name or ".lora_B." in name}


def train_adapters(model: nn.Module, training: bool) -> None:
    """Switch the adapters' dropout on or off; the base model's own dropout stays off, in reference passes too."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for dropout in module.lora_dropout.values():
                dropout.training = training


def has_dropout(model: nn.Module) -> bool:
    """Whether adapters drop inputs while they are trained."""
    layers = (module for module in model.modules() if isinstance(module, LoraLayer))
    each = (dropout for layer in layers for dropout in layer.lora_dropout.values())
    return any(isinstance(dropout, nn.Dropout) and dropout.p > 0 for dropout in each)


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Within this context the model is the base model.

    PEFT's `disable_adapter` looks through the whole model to report its state, twice a step: on a GPU a tenth of it.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    before = [layer.disable_adapters for layer in layers]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer, disabled in zip(layers, before, strict=True):
            layer._disable_adapters = disabled


def first_adapted(model: nn.Module, override: str | None = None) -> int:
    """Number of decoder blocks below the first one with adapters: those compute the same with them and without."""
    blocks = decoder_blocks(model, override).blocks
    return next((at for at, block in enumerate(blocks) if adapter_parameters(block)), 0)


def adapter_copy(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every adapter matrix on the CPU, to compare with later."""
    return {name: item.detach().cpu().clone() for name, item in adapter_parameters(model).items()}


def without_gradient(model: nn.Module) -> list[str]:
    """Names of the B matrices whose gradient is missing, zero or not finite; call after a backward pass."""
    bad = []
    for name, item in adapter_parameters(model).items():
        gradient = item.grad
        if ".lora_B." in name and (
            gradient is None or not bool(gradient.isfinite().all()) or not bool(gradient.any())
        ):
            bad.append(name)
    return bad


def unmoved(before: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """Names of the B matrices that equal their earlier copy bit for bit, or are not finite.

    Args:
        before: what `adapter_copy` returned.
        model: the same model, later.
    """
    still = []
    for name, item in adapter_parameters(model).items():
        now = item.detach().cpu()
        if ".lora_B." in name and (torch.equal(now, before[name]) or not bool(now.isfinite().all())):
            still.append(name)
    return still


def check_trained(before: Mapping[str, Tensor], model: nn.Module) -> None:
    """Refuse a training run in which an adapter stood still.

    Raises:
        UserError: names the first B matrices that did not move.
    """
    still = unmoved(before, model)
    if still:
        total = sum(".lora_B." in name for name in before)
        more = ", …" if len(still) > 3 else ""
        raise UserError(
            f"{len(still)} of {total} adapters did not move: {', '.join(still[:3])}{more}",
            "lower lora.last_block to the highest target layer − 1, or raise the learning rate",
        )


def block_targets(block: nn.Module) -> tuple[list[str], list[str]]:
    """Names, within a decoder block, of what adapters go on: linear modules and stacked expert parameters."""
    linears, experts = [], []
    for name, module in block.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            linears.append(name)
        elif name:
            stacks = module.named_parameters(recurse=False)
            experts += [f"{name}.{own}" for own, item in stacks if item.ndim == 3]
    return linears, experts


def _targets(found: BlockList, first_block: int, last_block: int) -> tuple[list[str], list[str]]:
    """Full names of the linear modules and of the stacked expert parameters in the blocks."""
    linears, experts = [], []
    for index in range(first_block, last_block + 1):
        own_linears, own_experts = block_targets(found.blocks[index])
        linears += [f"{found.path}.{index}.{name}" for name in own_linears]
        experts += [f"{found.path}.{index}.{name}" for name in own_experts]
    return linears, experts


def _pattern(path: str, linears: list[str]) -> str:
    """One regular expression that fully matches just these names."""
    tails = [name.removeprefix(f"{path}.").split(".", 1) for name in linears]
    blocks = "|".join(dict.fromkeys(block for block, _ in tails))
    inner = "|".join(dict.fromkeys(re.escape(name) for _, name in tails))
    return rf"{re.escape(path)}\.({blocks})\.({inner})"


def _check_placed(model: nn.Module, expected: set[str]) -> None:
    """Refuse a model on which PEFT put adapters elsewhere than asked.

    Known case: for mixture-of-experts families whose expert layout changed in transformers 5 (Qwen3-MoE,
    DeepSeek, GLM-4 and kin) PEFT rewrites names that end in gate_proj, up_proj or down_proj, and with them
    the linear layers of shared experts. Qwen3-MoE has none of these unless `mlp_only_layers` is set.
    """
    wrong = sorted(adapted_names(model) ^ expected)
    if wrong:
        raise UserError(
            f"PEFT {peft.__version__} misplaced {len(wrong)} adapters, such as {wrong[0]}",
            "this architecture is not supported with this version of PEFT",
        )


def _set_dropout(model: nn.Module, dropout: float) -> None:
    """Dropout on every adapter that can have it; PEFT refuses one number for linear layers and experts."""
    for module in model.modules():
        if isinstance(module, LoraLayer) and not isinstance(module, ParamWrapper):
            kind: Any = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
            module.lora_dropout[ADAPTER] = kind.train(module.training)


def _draw_b(model: nn.Module, std: float, seed: int) -> None:
    """Draw every B from N(0, std²), on the CPU, so that the device makes no difference."""
    if std <= 0:
        return
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, item in adapter_parameters(model).items():
            if ".lora_B." in name:
                item.copy_(torch.randn(item.shape, generator=generator) * std)
