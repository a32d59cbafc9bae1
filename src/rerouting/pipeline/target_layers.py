"""Which layers are rerouted, and how many blocks that takes."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from rerouting.core.errors import UserError
from rerouting.models.layers import decoder_blocks
from rerouting.models.shape import meta_model
from rerouting.training.config import LossConfig, RunConfig


def with_target_layers(config: RunConfig) -> RunConfig:
    """The same run with shares of the depth turned into layers; itself where there are none.

    The model's depth is read from its config; no weights are loaded.

    Raises:
        UserError: layers and depths are both given, a depth out of range, or a config that cannot be read.
    """
    if config.losses.target_depths is None and config.lora.first_depth is None:
        return config
    check_depths(config)
    model, _ = meta_model(config.model)
    return at_depths(config, len(decoder_blocks(model, config.model.blocks)))


def at_depths(config: RunConfig, depth: int) -> RunConfig:
    """The same run with `target_depths` and `first_depth` turned into layers of a model of `depth` blocks.

    Raises:
        UserError: as `with_target_layers`.
    """
    check_depths(config)
    losses, lora = config.losses, config.lora
    if losses.target_depths is not None:
        layers = tuple(sorted({max(1, round(share * depth)) for share in losses.target_depths}))
        losses = replace(losses, target_layers=layers, target_depths=None)
    if lora.first_depth is not None:
        lora = replace(lora, first_block=round(lora.first_depth * depth), first_depth=None)
    return replace(config, losses=losses, lora=lora)


def check_depths(config: RunConfig) -> None:
    """Refuse depths beside layers, and depths that are no shares.

    Raises:
        UserError: says which.
    """
    losses, lora = config.losses, config.lora
    if losses.target_depths is not None:
        depths = list(losses.target_depths)
        if losses.target_layers not in ((), LossConfig().target_layers):
            raise UserError(
                f"losses.target_layers {list(losses.target_layers)} and losses.target_depths {depths} are both given",
                "set one of them: losses.target_layers [] or losses.target_depths null puts a recipe's aside",
            )
        if not depths or not all(0 < share <= 1 for share in depths):
            raise UserError(
                f"losses.target_depths is {depths}", "give shares of the depth above 0 to 1, [0.33, 0.66]"
            )
    if lora.first_depth is not None:
        if lora.first_block:
            raise UserError(
                f"lora.first_block {lora.first_block} and lora.first_depth {lora.first_depth} are both given",
                "set one of them: lora.first_block 0 puts a recipe's aside",
            )
        if not 0 <= lora.first_depth < 1:
            raise UserError(
                f"lora.first_depth is {lora.first_depth}", "give a share of the depth from 0 to below 1"
            )


def blocks_needed(config: RunConfig) -> int:
    """Blocks that training runs: up to the top target layer, or the last block with adapters.

    Raises:
        UserError: no target layer, a negative one, adapters above which no loss stands, or a retain loss over padded
            positions without their number, or with a mean over sequences.
    """
    layers = config.losses.target_layers
    if not layers or min(layers) < 1:
        raise UserError(
            f"losses.target_layers is {list(layers)}",
            "give at least one layer, from 1 (the first block's output) on",
        )
    padded = config.losses.retain.options.get("over") == "padded"
    config.losses.check_retain_mean(padded)
    if config.data.max_retain is None and padded:
        raise UserError(
            "a retain loss over padded positions needs data.max_retain", "set it, 1024 as in the paper"
        )
    last = config.lora.last_block
    blocks = max(layers) if last is None else last + 1
    if blocks < max(layers):
        raise UserError(
            f"target layer {max(layers)} is the output of block {max(layers) - 1}, "
            f"above lora.last_block = {last}",
            f"set lora.last_block to {max(layers) - 1} or more",
        )
    if min(layers) <= config.lora.first_block:
        raise UserError(
            f"target layer {min(layers)} lies below every adapter (lora.first_block = {config.lora.first_block})",
            f"set lora.first_block to {min(layers) - 1} or less",
        )
    if blocks > max(layers) and config.losses.retain_layers == "target":
        raise UserError(
            f"no loss reaches the adapters in blocks {max(layers)} to {blocks - 1}",
            "set losses.retain_layers to all, or lower lora.last_block",
        )
    return blocks


def check_layers(config: RunConfig, model: nn.Module, blocks: int) -> None:
    """Refuse layers that the model does not have.

    Raises:
        UserError: names the layers there are.
    """
    depth = len(decoder_blocks(model, config.model.blocks))
    if blocks > depth:
        raise UserError(
            f"{config.model.name} has {depth} decoder blocks, but target layers "
            f"{list(config.losses.target_layers)} and lora.last_block = {config.lora.last_block} need {blocks}",
            f"choose target layers from 1 to {depth} and lora.last_block below {depth}",
        )
