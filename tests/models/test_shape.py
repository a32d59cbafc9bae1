"""Counts from a model without weights equal those of the model that is built, adapted and cut."""

from __future__ import annotations

import pytest
import torch
import transformers

from rerouting.core.errors import UserError
from rerouting.models import loading
from rerouting.models.config import LoraConfig, ModelConfig
from rerouting.models.layers import decoder_blocks
from rerouting.models.lora import adapter_parameters, add_lora
from rerouting.models.shape import KNOWN_NAMES, PUBLISHED, meta_model, shape_of
from rerouting.models.trunk import Trunk
from tests.models.tiny import BLOCKS, FAMILIES


def size(module):
    return sum(item.numel() for item in module.parameters())


def published(name):
    return shape_of(meta_model(ModelConfig(name="nobody/nothing"), name)[0])


def test_a_tiny_llama_by_hand():
    shape = shape_of(FAMILIES["llama"]())
    block = shape.blocks[0]
    # q and o 32·32, k and v 32·16, gate, up and down 32·48
    assert block.active == 2 * 1024 + 2 * 512 + 3 * 1536 == 7680
    assert block.parameters == 7680 + 2 * 32
    assert block.linear_in == 6 * 32 + 48 and block.linear_out == 32 + 16 + 16 + 32 + 48 + 48 + 32
    assert block.inputs == 32 + 32 + 48
    assert (block.wide, block.norms, block.experts) == (2 * 48, 2, 0)
    assert shape.parameters == 3 * 7744 + 2 * 128 * 32 + 32
    assert shape.trunk(2) == 128 * 32 + 2 * 7744 + 32
    assert shape.lora(2, 2) == 2 * 2 * (240 + 224)
    assert (shape.hidden, shape.heads, shape.query_width, shape.key_width) == (32, 4, 32, 16)


def test_a_token_passes_through_some_experts_only():
    dense, block = shape_of(FAMILIES["qwen2_moe"]()).blocks[:2]
    attention, shared, gate, router = 3072, 3 * 32 * 24, 32, 4 * 32
    expert = 48 * 32 + 32 * 24  # gate and up in one, down
    assert block.active == attention + shared + gate + router + 2 * expert
    assert block.experts == 4 * expert
    assert block.expert_widths == 4 * (48 + 32 + 32 + 24) == 2 * block.active_expert_widths
    assert block.lora(3) - block.active_lora(3) == 3 * 2 * (48 + 32 + 32 + 24)
    assert dense.experts == 0 and dense.active == 7680


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_the_built_model(family):
    model = FAMILIES[family]()
    shape = shape_of(model)
    with torch.device("meta"):
        assert shape_of(transformers.AutoModelForCausalLM.from_config(model.config)) == shape
    assert shape.parameters == size(model) and len(shape.blocks) == BLOCKS
    owner, trunk = decoder_blocks(model).owner, Trunk(model, 2)
    with trunk.truncated():
        assert shape.trunk(2) == size(owner)
    adapted = add_lora(model, LoraConfig(rank=3), last_block=1)
    assert shape.lora(3, 2) == sum(item.numel() for item in adapter_parameters(adapted).values())


def test_published_shapes():
    llama, mistral = published("llama-3-8b"), published("mistral-7b")
    assert llama.parameters == 8_030_261_248 and mistral.parameters == 7_241_732_096
    # q and o 4096·4096, k and v 4096·1024, three of 4096·14336
    assert llama.blocks[0].active == mistral.blocks[0].active == 218_103_808
    assert llama.lora(16, 21) == 21 * 16 * (2 * 8192 + 2 * 5120 + 3 * 18432) == 27_525_120
    assert llama.trunk(21) == 128_256 * 4096 + 21 * (218_103_808 + 8192) + 4096
    assert set(KNOWN_NAMES.values()) == set(PUBLISHED)


def test_published_shape_when_the_hub_is_silent(monkeypatch):
    monkeypatch.setattr(loading, "hub_answers", lambda: False)
    model, source = meta_model(ModelConfig(name="mistralai/Mistral-7B-Instruct-v0.2", revision="none-such"))
    assert model.config.vocab_size == 32000 and source.startswith(
        "built-in published shape mistral-7b, because"
    )
    with pytest.raises(UserError, match="was not found"):
        meta_model(ModelConfig(name="nobody/nothing"))


def test_a_config_is_enough(tmp_path):
    FAMILIES["llama"]().config.save_pretrained(tmp_path)
    model, source = meta_model(ModelConfig(name=str(tmp_path)))
    assert {item.device.type for item in model.parameters()} == {"meta"} and source.startswith("config of")
    assert shape_of(model) == shape_of(FAMILIES["llama"]())
