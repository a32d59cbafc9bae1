"""Changes to the residual stream while a block of code runs: a direction out of it, something added at one layer.

Everything is found by structure: what a decoder block adds to the stream comes out of its attention and its MLP, or
out of the norm behind them where a family has one (Gemma 2 and 3, OLMo 2). Layer indices as in `models.layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rerouting.core.errors import UserError
from rerouting.models.layers import block_of_layer, decoder_blocks, unwrapped

Change = Callable[[Tensor], Tensor]

_SUBLAYERS = ("attn", "attention", "mlp", "moe", "feed_forward", "ffn")
_POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
_WRITERS = ("o_proj", "out_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h", "fc2", "wo", "w2")


def resolved_layers(layers: Sequence[float], depth: int) -> list[int]:
    """Layer indices from 1 to depth: numbers below 1 are shares of the depth, others indices.

    Raises:
        UserError: none, or one outside of the model.
    """
    found = [max(1, round(layer * depth)) if 0 < layer < 1 else int(layer) for layer in layers]
    if not found or not all(1 <= layer <= depth for layer in found):
        raise UserError(
            f"layers {list(layers)} do not fit a model of {depth} layers",
            f"give shares of the depth between 0 and 1, or layers from 1 to {depth}",
        )
    return sorted(set(found))


def without(direction: Tensor, states: Tensor) -> Tensor:
    """States (..., D) without their part along a unit vector (D,); computed in float32."""
    unit = direction.to(states.device, torch.float32)
    wide = states.float()
    return (wide - (wide @ unit)[..., None] * unit).to(states.dtype)


def plus(vector: Tensor, states: Tensor) -> Tensor:
    """States (..., D) with something added, in their own dtype."""
    return states + vector.to(states)


def changed_layer(model: Any, layer: int, change: Change) -> AbstractContextManager[None]:
    """Pass the states (B, T, D) of one layer (≥ 1) through a function."""
    return changed_output(decoder_blocks(model).blocks[block_of_layer(layer)], change)


@contextmanager
def changed_output(block: nn.Module, change: Change) -> Iterator[None]:
    """Pass what a block puts out, (B, T, D), through a function."""
    handle = block.register_forward_hook(_output_hook(change))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def changed_stream(model: Any, change: Change) -> Iterator[None]:
    """Pass every block's input, what it adds to the stream, and its output through a function of (B, T, D)."""
    with ExitStack() as stack:
        for block in decoder_blocks(model).blocks:
            handles = [
                block.register_forward_pre_hook(_input_hook(change), with_kwargs=True),
                block.register_forward_hook(_output_hook(change)),
                *(module.register_forward_hook(_output_hook(change)) for module in _added(block)),
            ]
            for handle in handles:
                stack.callback(handle.remove)
        yield


@contextmanager
def edited_weights(model: Any, direction: Tensor) -> Iterator[None]:
    """Blocks whose weights cannot write along a unit vector (D,); afterwards the weights are the same, bit for bit.

    The embedding's share is taken out of the first block's input, which equals an edit of the embedding matrix
    (and of position embeddings) and leaves a tied LM head alone.

    Raises:
        UserError: a family with norms behind attention and MLP, adapters, quantised weights, or unknown names.
    """
    writers = _writers(model)
    kept = [(item, item.detach().cpu().clone()) for item, _ in writers]
    first = decoder_blocks(model).blocks[0]
    handle = first.register_forward_pre_hook(
        _input_hook(lambda states: without(direction, states)), with_kwargs=True
    )
    try:
        with torch.no_grad():
            for item, axis in writers:
                item.copy_(without(direction, item.movedim(axis, -1)).movedim(-1, axis))
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            for item, original in kept:
                item.copy_(original)


def _added(block: nn.Module) -> list[nn.Module]:
    """The modules of a block whose outputs are added to the stream."""
    children = dict(block.named_children())
    if _POST_NORMS[1] in children:
        return [children[name] for name in _POST_NORMS]
    return [
        child
        for name, child in children.items()
        if any(part in name for part in _SUBLAYERS) and "norm" not in name and "dropout" not in name
    ]


def _writers(model: Any) -> list[tuple[Tensor, int]]:
    """Parameters of the blocks that write to the stream, each with the axis that is the stream's."""
    if unwrapped(model) is not model:
        raise UserError("the model has adapters", "merge them first, or set where to stream")
    found: list[tuple[Tensor, int]] = []
    for number, block in enumerate(decoder_blocks(model).blocks):
        if _POST_NORMS[1] in dict(block.named_children()):
            raise UserError(
                "norms stand behind this family's attention and MLP, so no weights hold the direction alone",
                "set where to stream",
            )
        written = [pair for sublayer in _added(block) for pair in _writers_of(sublayer)]
        if len(written) < 2 or not all(item.is_floating_point() for item, _ in written):
            raise UserError(
                f"block {number} has no plain weights that are known to write to the stream",
                "set where to stream",
            )
        found += written
    return found


def _writers_of(sublayer: nn.Module) -> list[tuple[Tensor, int]]:
    found: list[tuple[Tensor, int]] = []
    for name, module in sublayer.named_modules():
        if name.rpartition(".")[2] in _WRITERS and isinstance(getattr(module, "weight", None), Tensor):
            # Conv1D of GPT-2 keeps its weight as (in, out)
            found.append((module.weight, 0 if isinstance(module, nn.Linear) else 1))
            if isinstance(getattr(module, "bias", None), Tensor):
                found.append((module.bias, 0))
        for own, item in module.named_parameters(recurse=False):
            if own == "down_proj" and item.ndim == 3:  # stacked experts: (experts, out, in)
                found.append((item, 1))
    return found


def _output_hook(change: Change) -> Callable[[Any, Any, Any], Any]:
    def hook(module: Any, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    return hook


def _input_hook(change: Change) -> Callable[[Any, Any, Any], Any]:
    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

    return hook
