import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from rerouting.core.errors import UserError
from rerouting.models import lora
from rerouting.models.config import LoraConfig
from rerouting.models.lora import (
    adapted_names,
    adapter_copy,
    adapter_parameters,
    add_lora,
    check_trained,
    load_adapter,
    save_adapter,
    unmoved,
    without_gradient,
)
from rerouting.models.trunk import Trunk
from tests.models.tiny import BLOCKS, FAMILIES, batch

PER_BLOCK = {
    "mixtral": 6,  # q k v o, stacked gate_up and down of the experts
    "qwen2_moe": 10,  # q k v o, three of the shared expert, its gate, two stacks; block 0 is dense (7)
    "qwen3_moe": 6,
    "phi3": 4,  # qkv, o, gate_up, down
    "gpt_neox": 4,
    "gpt2": 4,
}
DENSE = LoraConfig(rank=2, alpha=4.0, dropout=0.0, init_b_std=0.02)


def trained(model, layer=2, steps=2):
    """Two AdamW steps on a loss at the top layer of a trunk; returns the names without gradient."""
    trunk, (ids, mask) = Trunk(model, layer), batch()
    optimiser = torch.optim.AdamW(adapter_parameters(model).values(), lr=1e-2)
    dead = set()
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        state = trunk(ids, mask, [layer])[layer]
        (state - state.detach().roll(1, dims=1)).square().mean().backward()
        dead |= set(without_gradient(model))
        optimiser.step()
    model.eval()
    return dead


def logits(model):
    ids, mask = batch()
    extra = {"token_type_ids": torch.zeros_like(ids)} if hasattr(model.config, "vision_config") else {}
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, **extra).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_every_adapter_trains_and_reloads(family, tmp_path):
    model = add_lora(FAMILIES[family](), DENSE, last_block=1)
    names = adapted_names(model)
    expected = 17 if family == "qwen2_moe" else 2 * PER_BLOCK.get(family, 7)
    assert len(names) == expected, sorted(names)
    assert not any("vision" in name or ".2." in name for name in names)
    before = adapter_copy(model)
    assert trained(model) == set()
    assert unmoved(before, model) == []
    check_trained(before, model)
    save_adapter(model, tmp_path / "adapter", "some/base")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["adapter"]
    again = peft.PeftModel.from_pretrained(FAMILIES[family](), tmp_path / "adapter")
    assert torch.equal(logits(again), logits(model))
    assert torch.equal(logits(load_adapter(FAMILIES[family](), tmp_path / "adapter")), logits(model))
    assert not torch.allclose(logits(FAMILIES[family]()), logits(model))
    assert (
        json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"]
        == "some/base"
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_moe"])
def test_zero_b_starts_as_the_base_model(family):
    base = logits(FAMILIES[family]())
    model = add_lora(FAMILIES[family](), LoraConfig(rank=2), last_block=BLOCKS - 1)
    torch.testing.assert_close(logits(model), base)


def test_only_adapters_train_and_they_are_float32():
    model = add_lora(FAMILIES["llama"]().bfloat16(), LoraConfig(rank=2), last_block=0)
    trainable = {name for name, item in model.named_parameters() if item.requires_grad}
    assert trainable == set(adapter_parameters(model))
    assert {item.dtype for item in adapter_parameters(model).values()} == {torch.float32}
    assert (
        next(item for name, item in model.named_parameters() if "base_layer" in name).dtype == torch.bfloat16
    )


def test_same_seed_same_adapter_and_no_seed_is_spent():
    torch.manual_seed(5)
    first = adapter_copy(add_lora(FAMILIES["llama"](), DENSE, 1, seed=3))
    state = torch.get_rng_state()
    second = adapter_copy(add_lora(FAMILIES["llama"](), DENSE, 1, seed=3))
    other = adapter_copy(add_lora(FAMILIES["llama"](), DENSE, 1, seed=4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    model = FAMILIES["llama"]()
    torch.set_rng_state(state)
    add_lora(model, DENSE, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_initial_b_has_the_asked_for_spread():
    model = add_lora(FAMILIES["llama"](), LoraConfig(rank=16, init_b_std=0.002), 2)
    drawn = torch.cat(
        [item.flatten() for name, item in adapter_parameters(model).items() if ".lora_B." in name]
    )
    assert drawn.std().item() == pytest.approx(0.002, rel=0.05)
    assert abs(drawn.mean().item()) < 1e-4


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_dropout_acts_in_training_only(family):
    model = add_lora(FAMILIES[family](), LoraConfig(rank=2, dropout=0.5, init_b_std=0.5), 1)
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))


def test_adapters_above_the_loss_are_reported():
    model = add_lora(FAMILIES["llama"](), DENSE, last_block=2)
    before = adapter_copy(model)
    dead = trained(model)
    assert len(dead) == 7 and all(".layers.2." in name for name in dead)
    assert set(unmoved(before, model)) == dead
    with pytest.raises(UserError, match="7 of 21 adapters did not move"):
        check_trained(before, model)


def test_refusals():
    with pytest.raises(UserError, match="up to block 3 were asked for, but the model has 3 blocks"):
        add_lora(FAMILIES["llama"](), DENSE, 3)
    with pytest.raises(UserError, match="already has adapters"):
        add_lora(add_lora(FAMILIES["llama"](), DENSE, 0), DENSE, 0)


@pytest.fixture
def saved(tmp_path):
    save_adapter(add_lora(FAMILIES["llama"](), DENSE, 1), tmp_path / "a", "tiny/llama")
    return tmp_path / "a"


def test_adapter_for_another_family(saved):
    with pytest.raises(
        UserError, match=r"adapts model.layers.0.*which this model lacks \(it was made for tiny/llama\)"
    ):
        load_adapter(FAMILIES["gpt2"](), saved)


def test_adapter_of_another_width(saved):
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
    tensors = load_file(saved / "adapter_model.safetensors")
    tensors[name] = torch.zeros(2, 99)
    save_file(tensors, saved / "adapter_model.safetensors")
    model = FAMILIES["llama"]()
    with pytest.raises(UserError, match=r"width 99 at model.layers.0.mlp.down_proj, but this model has 48"):
        load_adapter(model, saved)
    assert adapted_names(model) == set()


def test_missing_and_broken_adapters(saved, tmp_path):
    model = FAMILIES["llama"]()
    with pytest.raises(UserError, match="there is no adapter in"):
        load_adapter(model, tmp_path / "nowhere")
    weights = saved / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        load_adapter(model, saved)
    weights.unlink()
    with pytest.raises(UserError, match=r"no adapter_model.safetensors"):
        load_adapter(model, saved)
    (saved / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_adapter(model, saved)


@pytest.mark.parametrize("harm", ["nan", "drop"])
def test_nan_or_half_adapter(saved, harm):
    tensors = load_file(saved / "adapter_model.safetensors")
    name = sorted(tensors)[0]
    if harm == "nan":
        tensors[name][0, 0] = float("nan")
    else:
        del tensors[name]
    save_file(tensors, saved / "adapter_model.safetensors")
    model = FAMILIES["llama"]()
    state = state_of(model)
    with pytest.raises(UserError, match="NaN" if harm == "nan" else "lacks 1 tensors"):
        load_adapter(model, saved)
    assert_as_before(model, state)


def state_of(model):
    """Everything that putting adapters on may change."""
    flags = [(name, item.requires_grad, item.clone()) for name, item in model.named_parameters()]
    ids, mask = batch()
    return flags, model.training, model(input_ids=ids, attention_mask=mask).logits


def assert_as_before(model, state):
    for (name, flag, item), (own, now, value) in zip(state[0], state_of(model)[0], strict=True):
        assert (name, flag) == (own, now) and torch.equal(item, value)
    assert model.training == state[1] and torch.equal(state_of(model)[2], state[2])
    assert adapted_names(model) == set() and not hasattr(model, "peft_config")


@pytest.mark.parametrize("family", ["llama", "mixtral", "gpt2"])
def test_misplaced_adapters_are_taken_off_again(family, monkeypatch):
    model = FAMILIES[family]()
    state = state_of(model)

    def misplaced(model, expected):
        raise UserError("misplaced", "nothing")

    monkeypatch.setattr(lora, "_check_placed", misplaced)
    with pytest.raises(UserError, match="misplaced"):
        add_lora(model, DENSE, 1)
    assert_as_before(model, state)


def test_saving_replaces_an_adapter_but_nothing_else(saved, tmp_path):
    model = add_lora(FAMILIES["llama"](), DENSE, 0)
    save_adapter(model, saved)
    assert len(load_file(saved / "adapter_model.safetensors")) == 14
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not our work"):
        save_adapter(model, tmp_path / "mine")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "mine"]
