"""What only a CUDA device can show; run with `make test-gpu`."""

from contextlib import ExitStack

import pytest
import torch
import torch.nn.attention.varlen

from rerouting.core.finder import Component
from rerouting.models.config import LoraConfig, ModelConfig
from rerouting.models.lean import lean
from rerouting.models.lora import adapter_parameters, add_lora, train_adapters
from rerouting.models.low_rank import lean_adapters
from rerouting.models.packing import register
from rerouting.models.trunk import Trunk
from rerouting.training.config import LossConfig
from rerouting.training.objective import Objective
from tests.models.tiny import FAMILIES
from tests.pipeline.tiny_run import save_model, write_recipe
from tests.training.test_loop import examples

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def gradients(device, packed=False):
    model = add_lora(FAMILIES["llama"](), LoraConfig(rank=4, dropout=0.0, init_b_std=0.05), 1, seed=0).to(
        device
    )
    if packed:
        model.set_attn_implementation(register(torch.device(device)))
    losses = LossConfig(target_layers=(1, 2), reroute=Component("angle"), retain=Component("relative"))
    objective = Objective(Trunk(model, 2), losses, pad_id=0, padded_length=16, micro_batch=4, packed=packed)
    objective.reroute(examples(6, 1), 1.0, 0, lambda value: value.backward())
    objective.retain(examples(6, 2), 1.0, lambda value: value.backward())
    return {name: item.grad.cpu() for name, item in adapter_parameters(model).items()}


def test_gradients_on_the_gpu_are_those_of_the_cpu():
    on_cpu, on_gpu = gradients("cpu"), gradients("cuda")
    for name, expected in on_cpu.items():
        assert (on_gpu[name] - expected).norm() <= 1e-3 * expected.norm(), name


def test_packed_gradients_on_the_gpu_are_those_of_the_cpu():
    on_cpu, on_gpu = gradients("cpu"), gradients("cuda", packed=True)
    for name, expected in on_cpu.items():
        assert (on_gpu[name] - expected).norm() <= 1e-3 * expected.norm(), name


@pytest.mark.parametrize("family", ["llama", "mistral"])  # Mistral's window is 4 tokens
def test_flash_attention_stays_within_packed_sequences(family):
    model = FAMILIES[family]().to("cuda", torch.bfloat16)
    model.set_attn_implementation(register(torch.device("cuda")))
    rows = [example.ids for example in examples(5, 1, 6, 40)]
    assert Trunk(model, 3).packs(rows) == ""
    flash = pytest.MonkeyPatch()
    used = []
    varlen_attn = torch.nn.attention.varlen.varlen_attn
    flash.setattr(
        torch.nn.attention.varlen, "varlen_attn", lambda *a, **k: used.append(1) or varlen_attn(*a, **k)
    )
    Trunk(model, 3).packs(rows)
    flash.undo()
    assert len(used) == 3, "one flash attention a block"


def test_a_lean_step_is_a_padded_one_in_bfloat16():
    """Cosine of the adapters' gradients, packed with flash attention against padded with sdpa."""
    found = []
    for packed in (False, True):
        model = add_lora(FAMILIES["llama"](), LoraConfig(rank=4, dropout=0.0, init_b_std=0.05), 1, seed=0)
        model.get_base_model().to(torch.bfloat16)
        model.to("cuda")
        for item in adapter_parameters(model).values():
            item.data = item.data.float()
        model.set_attn_implementation(register(torch.device("cuda")) if packed else "sdpa")
        losses = LossConfig(target_layers=(1, 2), reroute=Component("angle"), retain=Component("relative"))
        objective = Objective(
            Trunk(model, 2), losses, pad_id=0, padded_length=16, micro_batch=8, packed=packed
        )
        with lean_adapters(model):
            objective.reroute(examples(6, 1), 1.0, 0, lambda value: value.backward())
        found.append(torch.cat([item.grad.flatten() for item in adapter_parameters(model).values()]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.98


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_lean_ways_change_nothing_in_float32(family):
    def found(on):
        lora = LoraConfig(rank=4, dropout=0.0, init_b_std=0.05)
        model = add_lora(FAMILIES[family](), lora, 1, seed=0).to("cuda")
        with ExitStack() as ways:
            counts = ways.enter_context(lean(model)) if on else {}
            output = model(input_ids=torch.arange(3, 20, device="cuda")[None]).logits
            output.square().mean().backward()
        return counts, output, torch.cat([item.grad.flatten() for item in adapter_parameters(model).values()])

    (counts, ours, own), (_, plain, theirs) = found(True), found(False)
    assert counts["norms"] > 0 and counts["adapters"] > 0
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-3)
    assert (own - theirs).norm() <= 1e-3 * theirs.norm()


def test_dropout_is_drawn_the_same_way_twice_on_the_gpu():
    model = add_lora(FAMILIES["llama"](), LoraConfig(rank=4, dropout=0.3, init_b_std=0.1), 1, seed=0).to(
        "cuda"
    )
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj").double()
    train_adapters(model, True)
    x = torch.randn(9, layer.in_features, dtype=torch.float64, device="cuda", requires_grad=True)
    with lean_adapters(model):

        def drawn(at):
            torch.manual_seed(3)
            return layer(at)

        assert torch.equal(drawn(x), drawn(x))
        assert not torch.equal(drawn(x), layer(x))
        assert torch.autograd.gradcheck(drawn, (x,))


def test_auto_picks_the_gpu_in_bfloat16(tmp_path):
    from rerouting.models.loading import load

    loaded = load(ModelConfig(name=str(save_model(tmp_path / "model"))))
    assert loaded.device.type == "cuda"
    assert loaded.dtype is torch.bfloat16


def test_a_whole_run_on_the_gpu(tmp_path, monkeypatch):
    from rerouting.cli.main import main

    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))
    recipe = write_recipe(tmp_path)
    options = ["--model.device", "cuda", "--model.dtype", "bfloat16"]
    assert main(["train", "--config", str(recipe), "--out", str(tmp_path / "run"), *options]) == 0
    assert (tmp_path / "run" / "summary.json").exists()
