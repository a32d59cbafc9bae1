"""How large a model is, counted without its weights: from its config, built on torch's `meta` device.

What is counted is what the code adapts and runs: the blocks come from `decoder_blocks`, the adapted matrices from
`block_targets`. Of stacked experts (3-D parameters) a token passes through `num_experts_per_tok`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn

from rerouting.core.errors import UserError
from rerouting.models.config import ModelConfig
from rerouting.models.images import model_class
from rerouting.models.layers import decoder_blocks
from rerouting.models.loading import quiet, read_config
from rerouting.models.lora import block_targets

_COMMON: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "tie_word_embeddings": False,
}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3-8b": ("LlamaConfig", {**_COMMON, "vocab_size": 128256}),
    "mistral-7b": ("MistralConfig", {**_COMMON, "vocab_size": 32000}),
}
"""Shapes of the paper's two models, as their authors published them; transformers' config class and its values."""
KNOWN_NAMES = {
    "meta-llama/meta-llama-3-8b-instruct": "llama-3-8b",
    "meta-llama/meta-llama-3-8b": "llama-3-8b",
    "mistralai/mistral-7b-instruct-v0.2": "mistral-7b",
}
"""Hub names, in lower case, whose published shape is known when the hub does not give the config."""
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")


@dataclass(frozen=True)
class BlockShape:
    """One decoder block; widths are features a token.

    Attributes:
        parameters: all of its parameters.
        active: weights of its matrices that a token is multiplied with (of experts, those that it passes through).
        linear_in: inputs of its linear layers, summed.
        inputs: the same with an input that layers share (q, k, v; gate, up) once, without what attention puts out.
        linear_out: their outputs, summed.
        wide: outputs of those that are neither the block's nor attention's: the MLP's inner width.
        norms: norms over the whole width of the residual stream.
        experts: parameters in stacked experts.
        expert_widths: inputs and outputs of all stacked experts, summed.
        active_expert_widths: the same of the experts that a token passes through.
    """

    parameters: int
    active: int
    linear_in: int
    inputs: int
    linear_out: int
    wide: int
    norms: int
    experts: int = 0
    expert_widths: int = 0
    active_expert_widths: int = 0

    def lora(self, rank: int) -> int:
        """Parameters of adapters of this rank in all of its matrices."""
        return rank * (self.linear_in + self.linear_out + self.expert_widths)

    def active_lora(self, rank: int) -> int:
        """Of these, the ones that a token is multiplied with."""
        return rank * (self.linear_in + self.linear_out + self.active_expert_widths)


@dataclass(frozen=True)
class ModelShape:
    """A causal language model.

    Attributes:
        parameters: all of them, tied ones once.
        outside: those that the decoder runs besides its blocks: embeddings, final norm.
        hidden: width of the residual stream.
        heads: query heads.
        query_width: features of all query heads together.
        key_width: features of all key heads together.
        blocks: the decoder blocks.
    """

    parameters: int
    outside: int
    hidden: int
    heads: int
    query_width: int
    key_width: int
    blocks: tuple[BlockShape, ...]

    def trunk(self, blocks: int) -> int:
        """Parameters of what training runs: embeddings, the first blocks, final norm; no LM head."""
        return self.outside + sum(block.parameters for block in self.blocks[:blocks])

    def lora(self, rank: int, blocks: int) -> int:
        """Trainable parameters: adapters in the first blocks."""
        return sum(block.lora(rank) for block in self.blocks[:blocks])


def meta_model(config: ModelConfig, shape: str | None = None) -> tuple[Any, str]:
    """A model without weights, and where its shape comes from.

    Args:
        config: the model, named as for `load`.
        shape: one of `PUBLISHED`, taken in place of the model's own config.

    Raises:
        UserError: the config cannot be read, and there is no published shape for this name.
    """
    if shape is not None:
        return _built(_published(shape), config), f"built-in published shape {shape} (given by --shape)"
    try:
        return _built(read_config(config), config), f"config of {config.name}"
    except UserError as error:
        known = KNOWN_NAMES.get(config.name.lower())
        if known is None:
            raise
        reason = error.problem if len(error.problem) <= 120 else f"{error.problem[:117]}…"
        return _built(_published(known), config), f"built-in published shape {known}, because {reason}"


def shape_of(model: Any, override: str | None = None) -> ModelShape:
    """Count a model; its parameters may be on the `meta` device.

    Args:
        model: causal language model without adapters.
        override: dotted path of the block list, as in `decoder_blocks`.

    Raises:
        UserError: its blocks cannot be found.
    """
    found = decoder_blocks(model, override)
    text = model.config.get_text_config(decoder=True)
    hidden, heads = int(text.hidden_size), int(getattr(text, "num_attention_heads", 1))
    head = int(getattr(text, "head_dim", None) or hidden // heads)
    keys = int(getattr(text, "num_key_value_heads", None) or heads)
    query_width, key_width = heads * head, keys * head
    attention = {hidden, query_width, key_width, query_width + 2 * key_width}
    blocks = tuple(_block(block, text, query_width, attention) for block in found.blocks)
    return ModelShape(
        parameters=_size(model),
        outside=_size(found.owner) - sum(block.parameters for block in blocks),
        hidden=hidden,
        heads=heads,
        query_width=query_width,
        key_width=key_width,
        blocks=blocks,
    )


def _block(block: nn.Module, text: Any, query_width: int, attention: set[int]) -> BlockShape:
    linears, experts = block_targets(block)
    widths = {name: _widths(block.get_submodule(name)) for name in linears}
    stacks = [block.get_parameter(name) for name in experts]
    chosen = [(_experts_per_token(text, len(stack)), stack) for stack in stacks]
    dense = sum(width_in * width_out for width_in, width_out in widths.values())
    return BlockShape(
        parameters=_size(block),
        active=dense + _routers(block, set(linears)) + sum(k * stack[0].numel() for k, stack in chosen),
        linear_in=sum(width for width, _ in widths.values()),
        inputs=_inputs(widths, text.hidden_size, query_width),
        linear_out=sum(width for _, width in widths.values()),
        wide=sum(width for _, width in widths.values() if width not in attention),
        norms=sum(_is_norm(module, text.hidden_size) for module in block.modules()),
        experts=sum(stack.numel() for stack in stacks),
        expert_widths=sum(len(stack) * sum(stack.shape[1:]) for stack in stacks),
        active_expert_widths=sum(k * sum(stack.shape[1:]) for k, stack in chosen),
    )


def _inputs(widths: dict[str, tuple[int, int]], hidden: int, query_width: int) -> int:
    """Features that linear layers read: equally wide ones under one parent are one and the same.

    Attention's output layer falls away by that, or by its own width where heads are not as wide as the model.
    """
    own = query_width != hidden
    found = {
        (name.rpartition(".")[0], width_in)
        for name, (width_in, width_out) in widths.items()
        if not (own and (width_in, width_out) == (query_width, hidden))
    }
    return sum(width for _, width in found)


def _is_norm(module: nn.Module, hidden: int) -> bool:
    """Whether it is a norm of the whole residual stream, with weight or with weight and bias."""
    return "norm" in type(module).__name__.lower() and _size(module) in (hidden, 2 * hidden)


def _widths(linear: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of an `nn.Linear`, or of a `Conv1D`, which stores its weight the other way round."""
    weight: Any = linear.weight
    if isinstance(linear, nn.Linear):
        return int(weight.shape[1]), int(weight.shape[0])
    return int(weight.shape[0]), int(weight.shape[1])


def _routers(block: nn.Module, linears: set[str]) -> int:
    """Weights of bare matrices (routers); beside stacked experts a bare matrix is their bias, and none."""
    count = 0
    for name, module in block.named_modules():
        own = [item for _, item in module.named_parameters(recurse=False)]
        if name not in linears and not any(item.ndim == 3 for item in own):
            count += sum(item.numel() for item in own if item.ndim == 2)
    return count


def _experts_per_token(text: Any, experts: int) -> int:
    """Experts that a token passes through; all of them where the config does not say."""
    for name in _EXPERTS_PER_TOKEN:
        value = getattr(text, name, None)
        if isinstance(value, int):
            return min(value, experts)
    return experts


def _size(module: nn.Module) -> int:
    return sum(item.numel() for item in module.parameters())


def _published(name: str) -> Any:
    kind, values = PUBLISHED[name]
    return getattr(transformers, kind)(**values)


def _built(config: Any, model: ModelConfig) -> Any:
    try:
        with quiet(), torch.device("meta"):
            return model_class(config).from_config(config, trust_remote_code=model.trust_remote_code)
    except (ValueError, ImportError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(
            f"model {model.name} cannot be built without its weights: {text}", "check its config.json"
        ) from error
