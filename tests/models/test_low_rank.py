"""The lean forward of adapters is PEFT's own, and its dropout is drawn the same way twice."""

import itertools
from contextlib import nullcontext

import pytest
import torch

from rerouting.models.config import LoraConfig
from rerouting.models.lora import adapter_parameters, add_lora, train_adapters, without_adapters
from rerouting.models.low_rank import _Dropout, lean_adapters
from tests.models.tiny import FAMILIES

IDS = torch.arange(3, 15)[None]


def adapted(family="llama", dropout=0.0):
    return add_lora(
        FAMILIES[family](), LoraConfig(rank=4, alpha=8.0, dropout=dropout, init_b_std=0.1), 1, seed=0
    )


def gradients(model):
    model.zero_grad()
    output = model(input_ids=IDS).logits
    output.square().mean().backward()
    return output, {name: item.grad for name, item in adapter_parameters(model).items()}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_output_and_gradients_are_pefts(family):
    model = adapted(family)
    expected, theirs = gradients(model)
    with lean_adapters(model) as count:
        output, ours = gradients(model)
    assert count == (0 if family == "gpt2" else 14)  # GPT-2 has Conv1D, and goes on with PEFT's
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradients(model)[0], expected)


def test_without_adapters_it_is_the_base_model():
    model = adapted()
    plain = FAMILIES["llama"]()(input_ids=IDS).logits
    with lean_adapters(model), model.disable_adapter(), torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, plain)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_without_adapters_is_pefts_own_and_comes_back(family):
    model = adapted(family)
    with torch.no_grad():
        rerouted = model(input_ids=IDS).logits
        with model.disable_adapter():
            expected = model(input_ids=IDS).logits
        for ways in (nullcontext(), lean_adapters(model)):
            with ways, without_adapters(model):
                torch.testing.assert_close(model(input_ids=IDS).logits, expected)
        assert not torch.allclose(rerouted, expected)
        assert torch.equal(model(input_ids=IDS).logits, rerouted)
    assert all(item.requires_grad for item in adapter_parameters(model).values())


def test_a_step_of_the_optimiser_is_seen_in_bfloat16():
    """Fused AdamW changes a matrix without changing its version."""
    model = adapted()
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    layer.base_layer.bfloat16()
    x = torch.randn(5, layer.in_features).bfloat16()
    parameters = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=True)
    with lean_adapters(model):
        before = layer(x)
        before.square().mean().backward()
        optimizer.step()
        after = layer(x).detach().float()
    theirs = layer(x).detach().float()
    assert (after - theirs).norm() <= 0.02 * theirs.norm()
    assert (after - before.detach().float()).norm() > 0.2 * theirs.norm()


def test_dropout_has_the_right_share_and_the_gradient_of_its_own_draw():
    model = adapted(dropout=0.5)
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    x = torch.randn(40, layer.in_features, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer.double()
    train_adapters(model, True)
    with lean_adapters(model):
        means = torch.stack([layer(x) for _ in range(600)]).mean(0)
        torch.manual_seed(3)
        x.requires_grad_(True)
        layer(x).sum().backward()
        with torch.no_grad():
            values = []
            for shift in (1e-6, -1e-6):
                moved = x.detach().clone()
                moved[7, 5] += shift
                torch.manual_seed(3)
                values.append(layer(moved).sum())
    assert x.grad[7, 5].item() == pytest.approx(((values[0] - values[1]) / 2e-6).item(), rel=1e-4)
    train_adapters(model, False)
    whole = layer(x.detach())
    update = (whole - layer.base_layer(x.detach())).norm()
    assert (means - whole).norm() < 0.15 * update, "on average the update is that without dropout"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_draws_of_dropout_have_nothing_to_do_with_each_other(dtype):
    x = torch.ones(300, 64, dtype=dtype)
    draws = [_Dropout(0.25, seed) for seed in range(7, 70_000_000, 9_999_999)]
    kept = [draw.of(x, draw.kept(x)).float() for draw in draws]
    assert set(kept[0].flatten().tolist()) == {0.0, 1.0}, "an element is dropped or left as it is"
    assert all(abs(one.mean() - 0.75) < 0.02 for one in kept)
    assert torch.equal(kept[0], draws[0].of(x, draws[0].kept(x)).float())
    for first, second in itertools.combinations(kept, 2):
        assert abs((first * second).mean() - 0.75**2) < 0.02
    assert _Dropout(0.0, 7).kept(x) is None


def test_bfloat16_activations_are_never_copied_to_float32():
    model = adapted()
    base = model.get_base_model().bfloat16()
    for item in adapter_parameters(model).values():
        item.data = item.data.float()
    kept = []

    def watch(tensor):
        kept.append(tensor)
        return tensor

    with lean_adapters(model), torch.autograd.graph.saved_tensors_hooks(watch, lambda tensor: tensor):
        layer = base.model.layers[0].mlp.up_proj
        y = layer(torch.randn(6, layer.in_features, dtype=torch.bfloat16, requires_grad=True))
    assert y.dtype is torch.bfloat16
    assert not [one for one in kept if one.dtype is torch.float32 and one.shape[0] == 6]
