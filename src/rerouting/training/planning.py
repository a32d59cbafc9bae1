"""What a training step costs: arithmetic on shapes alone, nothing is loaded or measured here.

Floating-point operations are the *minimum* of the method (Zou et al. 2024, Algorithm 1) on real tokens: the frozen
blocks run three times (reference forward, adapted forward, backward to the inputs; a frozen matrix has no weight
gradient), 2 operations a weight and token each. Left out: norms, activations and losses (element by element), the
embedding, and the saving of the very first products, whose input needs no gradient. Merging the adapters into stacked
experts, as PEFT does in each forward pass, is left out as well: it is no part of the method.

Llama-3-8B, 21 blocks of 218,103,808 matrix weights: 3 * 2 * 21 * 218.1 M = 27.48 GFLOP a token, so 288.5 TFLOP for a
step of 10,500 tokens, 330 for 12,000 and 355 for 12,920. Here the circuit-breaker stream counts up to its top target
layer only, one block fewer: 322 for 6,000 + 6,000 tokens.

Memory is what the training loop holds at its peak, the start of a micro-batch's backward pass, bytes; the saved
activations were counted on the Llama family (tests/training/test_planning.py), and are an estimate for others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rerouting.models.packing import BLOCK, GROUPED, VARLEN
from rerouting.models.shape import BlockShape, ModelShape
from rerouting.training.plan_config import Strategy

FLOAT32 = 4


@dataclass(frozen=True)
class Stream:
    """The sequences of one stream in one step.

    Attributes:
        sequences: how many.
        blocks: decoder blocks that its loss needs.
        states: hidden states a token that its loss compares.
        mean: tokens a sequence, mean.
        mean_square: mean of their squares, which attention grows with.
        longest: tokens of the longest sequence.
    """

    sequences: int
    blocks: int
    states: int
    mean: float
    mean_square: float
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], blocks: int, states: int) -> Stream:
        """The stream of sequences with these numbers of tokens, at least one."""
        count, squares = len(lengths), sum(length * length for length in lengths)
        return cls(count, blocks, states, sum(lengths) / count, squares / count, max(lengths))

    @property
    def tokens(self) -> float:
        """Real tokens of a step."""
        return self.sequences * self.mean


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one step.

    Attributes:
        frozen: products with the model's own matrices.
        lora: products with A and B, and their gradients.
        attention: scores and mixing, causal: half of the square.
    """

    frozen: float
    lora: float
    attention: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.frozen + self.lora + self.attention


def step_flops(
    shape: ModelShape, streams: Sequence[Stream], rank: int, recompute: bool = False, first: int = 0
) -> Flops:
    """Operations of one step, over all devices.

    Args:
        shape: the model.
        streams: circuit-breaker and retain stream.
        rank: of the adapters, in every block that a stream runs.
        recompute: the adapted forward pass runs twice, as activation checkpointing has it.
        first: first block with adapters; those below run once.
    """
    again = int(recompute)
    frozen = lora = attention = 0.0
    for stream in streams:
        below, blocks = shape.blocks[:first], shape.blocks[first : stream.blocks]
        frozen += stream.tokens * 2 * (3 + again) * sum(block.active for block in blocks)
        frozen += stream.tokens * 2 * sum(block.active for block in below)
        # forward 2 a parameter; backward 4: the input's gradient and the parameter's own
        lora += stream.tokens * (6 + 2 * again) * sum(block.active_lora(rank) for block in blocks)
        # forward: two products of 2·T²·width, half of it masked; backward twice as much
        forward = stream.sequences * 2 * stream.mean_square * shape.query_width
        attention += (len(blocks) * (1 + 1 + 2 + again) + len(below)) * forward
    return Flops(frozen, lora, attention)


@dataclass(frozen=True)
class StepSetup:
    """How a step lies in memory.

    Attributes:
        rank: of the adapters.
        state_bytes: bytes of a number in the model's dtype.
        attention: implementation, as transformers names it ("rerouting_grouped" is ours).
        micro_batch: sequences that pass through the model at once.
        devices: how many share the sequences of a step.
        strategy: what they share besides.
        first: first block with adapters.
        device: kind of device, as torch names it.
    """

    rank: int
    state_bytes: int
    attention: str
    micro_batch: int
    devices: int = 1
    strategy: Strategy = "ddp"
    first: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights: the whole model, in its dtype; of its blocks a share where they are shared out.
        gathered: blocks that a device with shares holds whole for a while: two.
        adapters: float32.
        gradients: the adapters', float32.
        moments: AdamW's two, float32.
        reference: reference states of one micro-batch, each of which gives way to its gradient.
        activations: what the adapted forward pass of one micro-batch keeps for the backward pass.
    """

    weights: float
    gathered: float
    adapters: float
    gradients: float
    moments: float
    reference: float
    activations: float

    @property
    def total(self) -> float:
        """All of them; the framework's own memory (a CUDA context, gaps of the allocator) comes on top."""
        kept = self.weights + self.gathered + self.adapters + self.gradients + self.moments
        return kept + self.reference + self.activations


def step_memory(
    shape: ModelShape, streams: Sequence[Stream], layout: StepSetup, recompute: bool = False
) -> Memory:
    """Memory of one device at its peak, for micro-batches of the longest sequences.

    Args:
        shape: the model.
        streams: circuit-breaker and retain stream; the one that needs more counts.
        layout: formats, kernels, micro-batch and sharing.
        recompute: keep the blocks' inputs alone and run a block again for its backward pass.
    """
    trained = shape.lora(layout.rank, max(stream.blocks for stream in streams))
    trained -= shape.lora(layout.rank, layout.first)
    share = layout.devices if layout.strategy == "fsdp2" else 1
    blocks = sum(block.parameters for block in shape.blocks)
    gathered = 2 * max(block.parameters for block in shape.blocks) if share > 1 else 0
    parts = [_micro_batch(shape, stream, layout, recompute) for stream in streams]
    reference, activations = max(parts, key=sum)
    return Memory(
        weights=(shape.parameters - blocks + blocks / share) * layout.state_bytes,
        gathered=gathered * layout.state_bytes,
        adapters=FLOAT32 * trained,
        gradients=FLOAT32 * trained,
        moments=2 * FLOAT32 * trained,
        reference=reference,
        activations=activations,
    )


def _micro_batch(
    shape: ModelShape, stream: Stream, layout: StepSetup, recompute: bool
) -> tuple[float, float]:
    """Bytes of reference states and of the saved activations."""
    sequences = min(layout.micro_batch, math.ceil(stream.sequences / layout.devices))
    tokens = sequences * stream.longest
    states = tokens * stream.states * shape.hidden
    blocks = shape.blocks[layout.first : stream.blocks]
    each = [block_activations(shape, block, layout, stream.longest) * tokens for block in blocks]
    merged = [block.experts * layout.state_bytes for block in blocks]
    if recompute:
        inputs = len(blocks) * tokens * shape.hidden * layout.state_bytes
        activations = inputs + max(map(sum, zip(each, merged, strict=True)))
    else:
        activations = sum(each) + sum(merged)
    return states * layout.state_bytes, activations


def block_activations(shape: ModelShape, block: BlockShape, layout: StepSetup, length: int) -> float:
    """Bytes a token that a block with adapters keeps for its backward pass.

    Each linear layer's adapter keeps its input, once for layers that share it, each norm its own in float32, a
    gated MLP gate, activated gate and up, attention queries, keys, values, and, unless it is flash attention, its
    weights.

    Args:
        shape: the model.
        block: one of its blocks.
        layout: formats and kernels.
        length: tokens of the sequence, which attention weights grow with where they are kept.
    """
    size = layout.state_bytes
    own = block.inputs + 1.5 * block.wide + block.active_expert_widths
    return own * size + FLOAT32 * block.norms * shape.hidden + _attention(shape, layout, length)


def _attention(shape: ModelShape, layout: StepSetup, length: int) -> float:
    """Bytes a token, the output included, which the block's `inputs` do not count."""
    queries, keys, weights = shape.query_width, shape.key_width, shape.heads * length
    size = layout.state_bytes
    # but for windows shorter than the sequence and capped scores (models/packing.py)
    flash_on_cpu = layout.attention == GROUPED and layout.device == "cpu" and size == FLOAT32
    if flash_on_cpu or layout.attention in ("flash_attention_2", VARLEN):
        return size * (2 * queries + 2 * keys)
    if layout.attention == "sdpa":  # keys and values repeated for every query head
        return size * 4 * queries
    if layout.attention == "eager":  # the weights in float32 and in the states' dtype
        return size * (4 * queries + weights) + FLOAT32 * weights
    kept = weights if length <= BLOCK else 0  # those of long sequences are computed again
    return size * (2 * queries + 2 * keys + kept)


def step_seconds(flops: float, rate: float, efficiency: float, devices: int) -> float:
    """Seconds of one step, communication left out.

    Args:
        flops: operations over all devices.
        rate: TFLOP/s of one device.
        efficiency: share of the rate that is reached.
        devices: how many share the step evenly.
    """
    return flops / (devices * rate * 1e12 * efficiency)
