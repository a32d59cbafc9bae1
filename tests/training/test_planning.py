"""Cost arithmetic worked by hand, and against what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers

from rerouting.models.config import LoraConfig, ModelConfig
from rerouting.models.lora import add_lora, train_adapters
from rerouting.models.low_rank import lean_adapters
from rerouting.models.packing import GROUPED, Layout, register
from rerouting.models.shape import BlockShape, ModelShape, meta_model, shape_of
from rerouting.models.trunk import Trunk
from rerouting.training.planning import (
    StepSetup,
    Stream,
    block_activations,
    step_flops,
    step_memory,
    step_seconds,
)

BLOCK = BlockShape(parameters=110, active=100, linear_in=20, inputs=14, linear_out=30, wide=12, norms=2)
SHAPE = ModelShape(
    parameters=1000, outside=50, hidden=10, heads=2, query_width=8, key_width=4, blocks=(BLOCK, BLOCK, BLOCK)
)
HARMFUL = Stream(sequences=3, blocks=1, states=1, mean=4, mean_square=20, longest=6)
RETAIN = Stream(sequences=2, blocks=2, states=3, mean=5, mean_square=25, longest=5)
STREAMS = [HARMFUL, RETAIN]
LAYOUT = StepSetup(rank=2, state_bytes=2, attention="sdpa", micro_batch=2)


def test_operations_by_hand():
    flops = step_flops(SHAPE, STREAMS, rank=2)
    assert flops.frozen == 12 * 6 * 100 + 10 * 6 * 200  # tokens · three passes of 2 · weights
    assert flops.lora == 12 * 6 * 100 + 10 * 6 * 200  # rank 2 · (20 + 30) parameters a block
    assert flops.attention == 4 * (3 * 1 * 2 * 20 * 8 + 2 * 2 * 2 * 25 * 8)
    assert flops.total == flops.frozen + flops.lora + flops.attention
    again = step_flops(SHAPE, STREAMS, rank=2, recompute=True)
    assert (again.frozen, again.lora) == (flops.frozen * 4 / 3, flops.lora * 4 / 3)
    assert again.attention == flops.attention * 5 / 4


def test_blocks_below_the_first_adapter_run_once():
    flops = step_flops(SHAPE, [RETAIN], rank=2, first=1)
    assert flops.frozen == 10 * (2 * 100 + 6 * 100)
    assert flops.lora == 10 * 6 * 100
    assert flops.attention == (4 + 1) * 2 * 2 * 25 * 8
    memory = step_memory(SHAPE, [RETAIN], replace(LAYOUT, first=1))
    assert (
        memory.adapters == 400 and memory.activations == step_memory(SHAPE, [RETAIN], LAYOUT).activations / 2
    )


def test_experts_count_as_far_as_a_token_passes_through():
    block = replace(BLOCK, experts=80, expert_widths=40, active_expert_widths=10)
    shape = replace(SHAPE, blocks=(block,))
    assert step_flops(shape, [HARMFUL], rank=2).lora == 12 * 6 * 2 * (20 + 30 + 10)
    merged = (
        step_memory(shape, [HARMFUL], LAYOUT).activations - step_memory(SHAPE, [HARMFUL], LAYOUT).activations
    )
    assert merged == 80 * 2 + 12 * 10 * 2  # whole stacks once, widths for each of 2 · 6 tokens


def test_memory_by_hand():
    memory = step_memory(SHAPE, STREAMS, LAYOUT)
    assert (memory.weights, memory.gathered) == (2000, 0)
    assert (memory.adapters, memory.gradients, memory.moments) == (
        800,
        800,
        1600,
    )  # 2 blocks · 2 · 50, float32
    each = 2 * (14 + 18 + 4 * 8) + 4 * 2 * 10  # adapters' inputs, norms, MLP, attention
    assert block_activations(SHAPE, BLOCK, LAYOUT, 5) == each
    tokens = 2 * 5  # of the retain stream, which needs more than the other's 2 · 6 in one block
    assert memory.activations == 2 * tokens * each
    assert memory.reference == tokens * 3 * 10 * 2
    assert memory.total == 2000 + 3200 + 600 + memory.activations
    again = step_memory(SHAPE, STREAMS, LAYOUT, recompute=True)
    assert again.activations == 2 * tokens * 10 * 2 + tokens * each
    assert again.total < memory.total


def test_flash_attention_keeps_no_weights_and_repeats_no_keys():
    flash = replace(LAYOUT, attention="rerouting_varlen")
    assert block_activations(SHAPE, BLOCK, flash, 5) == 2 * (14 + 18 + 2 * 8 + 2 * 4) + 4 * 2 * 10
    on_cpu = replace(LAYOUT, attention="rerouting_grouped")
    assert block_activations(SHAPE, BLOCK, on_cpu, 5) == 2 * (14 + 18 + 2 * 8 + 2 * 4 + 2 * 5) + 4 * 2 * 10
    in_float32 = replace(on_cpu, state_bytes=4)  # flash attention, too
    assert block_activations(SHAPE, BLOCK, in_float32, 5) == 4 * (14 + 18 + 2 * 8 + 2 * 4) + 4 * 2 * 10
    elsewhere = replace(in_float32, device="mps")
    assert block_activations(SHAPE, BLOCK, elsewhere, 5) == 4 * (14 + 18 + 2 * 8 + 2 * 4 + 2 * 5) + 4 * 2 * 10


@pytest.mark.parametrize(
    ("strategy", "weights", "gathered", "adapters", "gradients", "moments"),
    [
        ("ddp", 2000, 0, 800, 800, 1600),
        ("fsdp2", 2000 - 330, 2 * 110 * 2, 800, 800, 1600),
    ],
)
def test_sharing_by_hand(strategy, weights, gathered, adapters, gradients, moments):
    memory = step_memory(SHAPE, STREAMS, replace(LAYOUT, devices=2, strategy=strategy))
    assert (memory.weights, memory.gathered) == (weights, gathered)
    assert (memory.adapters, memory.gradients, memory.moments) == (adapters, gradients, moments)
    # a device has one of the 2 retain sequences (5 tokens in 2 blocks) and, which needs more, 2 of the others' 3
    assert memory.reference == 2 * 6 * 1 * 10 * 2


def test_time_by_hand():
    assert step_seconds(6e12, rate=2.0, efficiency=0.5, devices=3) == pytest.approx(2.0)


def test_llama_3_8b_needs_what_the_design_says():
    """288 TFLOP for 10,500 tokens through 21 blocks three times; less where the harmful stream stops at layer 20."""
    shape = shape_of(meta_model(ModelConfig(), "llama-3-8b")[0])

    def streams(tokens, harmful_blocks):
        mean = tokens / 32
        one = Stream(16, 21, 22, mean, mean**2, 1024)
        return [replace(one, blocks=harmful_blocks, states=2), one]

    assert step_flops(shape, streams(10_500, 21), 16).frozen / 1e12 == pytest.approx(288.5, abs=0.1)
    assert step_flops(shape, streams(12_920, 21), 16).frozen / 1e12 == pytest.approx(355, abs=0.1)
    usual = step_flops(shape, streams(12_000, 20), 16)
    assert usual.frozen / 1e12 == pytest.approx(321.9, abs=0.1)
    assert 288 < usual.total / 1e12 < 355
    assert usual.lora < 0.01 * usual.frozen and usual.attention < 0.01 * usual.frozen


@pytest.mark.parametrize(
    ("dtype", "dropout", "attention", "low", "high"),
    [
        (torch.bfloat16, 0.05, GROUPED, 0.93, 1.05),
        (torch.bfloat16, 0.0, GROUPED, 0.93, 1.05),
        (torch.bfloat16, 0.0, "sdpa", 0.93, 1.1),
        (torch.float32, 0.05, "eager", 0.93, 1.15),
        (torch.float32, 0.0, GROUPED, 0.93, 1.05),
    ],
)
def test_activations_against_what_autograd_keeps(dtype, dropout, attention, low, high):
    register(torch.device("cpu"))
    few, shape = kept_bytes(2, dtype, dropout, attention)
    more, _ = kept_bytes(3, dtype, dropout, attention)
    layout = StepSetup(4, dtype.itemsize, attention, micro_batch=2)
    expected = block_activations(shape, shape.blocks[0], layout, 48) * 2 * 48
    assert low < expected / (more - few) < high


def kept_bytes(blocks, dtype, dropout, attention):
    """Bytes that a trunk's adapted forward pass of 2 sequences of 48 tokens keeps, weights left out."""
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=160, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    shape = shape_of(model.requires_grad_(False).eval())
    adapted = add_lora(model, LoraConfig(rank=4, dropout=dropout, init_b_std=0.02), blocks - 1)
    train_adapters(adapted, True)
    own = {item.untyped_storage().data_ptr() for item in adapted.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.randint(0, 128, (2, 48), generator=torch.Generator().manual_seed(0))
    watched = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with lean_adapters(adapted), watched:
        if attention == GROUPED:
            rows = ids.flatten()[None]
            states = Trunk(adapted, blocks)(rows, None, [blocks], packed=Layout.of([48, 48]))
        else:
            states = Trunk(adapted, blocks)(ids, torch.ones_like(ids), [blocks])
    assert states[blocks].requires_grad
    return sum(count for count, _ in kept.values()), shape
