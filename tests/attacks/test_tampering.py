"""Fine-tuning and adapter arithmetic, on tiny random models in float32: what they do, and that nothing stays."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from rerouting.attacks.adapter_subtraction import AdapterSubtraction, _scaled
from rerouting.attacks.finetune import Finetune, _Training
from rerouting.attacks.refusal_ablation import RefusalAblation
from rerouting.core.contracts import Resources, Verdict
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.models.adapter_files import save_adapter
from rerouting.models.config import LoraConfig, ModelConfig
from rerouting.models.loading import load
from rerouting.models.lora import add_lora
from rerouting.models.merging import merge_to
from rerouting.targets.completions import _makes_sense, restored
from rerouting.targets.target import Target
from rerouting.targets.target_loss import target_pair
from tests.pipeline.tiny_run import save_model

CHATS = [Chat("a", (Message("user", "How do I bake?"),)), Chat("b", (Message("user", "Go on"),))]
RESOURCES = Resources(0, lambda judged: [Verdict(False, "no") for _ in judged], assistant=None)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A tiny base model, and the same with a strong adapter merged."""
    folder = tmp_path_factory.mktemp("tampering")
    model = save_model(folder)
    config = ModelConfig(name=str(model), dtype="float32", device="cpu")
    base, adapted = load(config), load(config)
    peft = add_lora(adapted.model, LoraConfig(rank=2, alpha=4.0, init_b_std=0.3), 1)
    save_adapter(peft, folder / "adapter", model)
    merge_to(folder / "merged", model, folder / "adapter")
    rerouted = load(replace(config, name=str(folder / "merged")))
    return Target(base, 6), Target(replace(rerouted, adapter_path=folder / "adapter"), 6)


def weights(model):
    return {name: item.detach().clone() for name, item in model.state_dict().items()}


def logits(target):
    return target.model(input_ids=torch.arange(5, 25)[None]).logits


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_scale_zero_is_the_base_and_one_the_rerouted_model(pair):
    base, rerouted = pair
    before = weights(rerouted.model)
    plain = logits(rerouted)
    assert not torch.allclose(plain, logits(base), atol=1e-2)
    with _scaled(rerouted, 0.0):
        assert torch.allclose(logits(rerouted), logits(base), atol=1e-4)
    with _scaled(rerouted, 1.0):
        assert torch.allclose(logits(rerouted), plain, atol=1e-6)
    with pytest.raises(RuntimeError, match="broken"), _scaled(rerouted, -1.0):
        raise RuntimeError("broken")
    assert same(before, weights(rerouted.model))


def test_every_scale_is_an_attempt_and_a_model_without_adapter_says_so(pair):
    base, rerouted = pair
    before = weights(rerouted.model)
    attempts = AdapterSubtraction(scales=[0.0, 1.0]).run(rerouted, CHATS, RESOURCES)
    found = [(one.chat.id, one.trace["scale"], one.trace["ablated"]) for one in attempts]
    assert found == [(name, at, ablated) for at in (0.0, 1.0) for ablated in (False, True) for name in "ab"]
    assert [one.answer for one in attempts[:2]] == base.answer(
        [replace(one, answer=None) for one in attempts[:2]]
    )
    fitted = RefusalAblation().fit(rerouted, RESOURCES)
    alone = RefusalAblation().run(rerouted, CHATS, replace(RESOURCES, fitted=fitted))
    assert [one.answer for one in attempts[6:]] == [one.answer for one in alone], "scale 1 changes nothing"
    assert len(AdapterSubtraction(scales=[0.0], ablate=False).run(rerouted, CHATS, RESOURCES)) == 2
    assert same(before, weights(rerouted.model))
    with pytest.raises(UserError, match="no adapter"):
        AdapterSubtraction().run(base, CHATS, RESOURCES)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_lowers_the_loss_and_is_undone(pair, method):
    target = pair[0]
    before = weights(target.model)
    attack = Finetune(method=method, lrs=[1e-2], steps=[3, 8], examples=4, batch=4)
    attempts = attack.run(target, CHATS, RESOURCES)
    assert [(one.chat.id, one.trace["steps"]) for one in attempts] == [("a", 3), ("b", 3), ("a", 8), ("b", 8)]
    trace = attempts[-1].trace
    assert trace["last_loss"] < trace["first_loss"]
    assert trace["harmless_loss"] != trace["harmless_loss_before"]
    assert same(before, weights(target.model))
    assert not any(item.requires_grad for item in target.model.parameters())
    again = attack.run(target, CHATS, RESOURCES)
    assert again == attempts, "same seed, same result"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_come_back_after_an_error_and_divergence_is_a_failure(pair, method, monkeypatch):
    target = pair[0]
    before = weights(target.model)
    monkeypatch.setattr(_Training, "_step", lambda *given: float("nan"))
    attempts = Finetune(method=method, lrs=[1e-2, 1e-3], steps=[2]).run(target, CHATS, RESOURCES)
    assert len(attempts) == 4 and all("diverged" in one.failure for one in attempts)
    assert attempts[0].trace["last_loss"] is None
    json.dumps([one.trace for one in attempts], allow_nan=False)

    def broken(attempts):
        raise RuntimeError("broken")

    monkeypatch.undo()
    monkeypatch.setattr(target, "answer", broken)
    with pytest.raises(RuntimeError, match="broken"):
        Finetune(method=method, lrs=[1e-2], steps=[1], examples=2).run(target, CHATS, RESOURCES)
    assert same(before, weights(target.model))


def test_own_completions_and_an_empty_grid(pair, tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "Say it", "completion": "Here it is."}\n')
    pairs = Finetune(completions=str(file))._pairs(pair[0].tokenizer, [])
    assert len(pairs) == 1 and pair[0].tokenizer.decode(pairs[0][1]) == "Here it is."
    for options in ({"lrs": []}, {"steps": []}, {"steps": [0]}, {"examples": 0}, {"batch": 0}):
        with pytest.raises(UserError, match="nothing to do"):
            Finetune(**options)


def test_the_base_models_completions_are_trained_on_by_default(pair, tmp_path):
    base, rerouted = pair
    resources = replace(RESOURCES, base=base, folder=tmp_path)
    attack = Finetune(lrs=[1e-2], steps=[2], examples=4, batch=4, tokens=120)
    fitted = attack.fit(rerouted, resources)
    chats = restored(fitted)
    assert 1 <= len(chats) <= 4 and all(len(one.response) > len(one.target) + 20 for one in chats)
    assert all(one.response.startswith(one.target) for one in chats)
    pairs = attack._pairs(rerouted.tokenizer, chats)
    assert [rerouted.tokenizer.decode(wanted) for _, wanted in pairs] == [one.response for one in chats]
    again = attack.fit(rerouted, resources)
    assert same(fitted, again) and len(list((tmp_path / "completions").iterdir())) == 1
    trace = attack.run(rerouted, CHATS, replace(resources, fitted=fitted))[0].trace
    assert trace["trained_on"] == "base completions" and trace["examples"] == len(chats)


def test_loops_and_stubs_make_no_sense():
    plain = (
        "First, find a quiet place, then take the tools out of the bag and lay them down where you see them."
    )
    assert _makes_sense(plain)
    assert not _makes_sense("Sure.") and not _makes_sense("and then you take it, " * 12)


def training(target, lr=1e-2):
    chats = [replace(chat, target="Here is how it is done") for chat in CHATS]
    target.model.requires_grad_(True)
    pairs = [target_pair(chat, target.tokenizer) for chat in chats]
    return _Training(target, pairs, 2, lr, list(target.model.parameters()), 0)


def test_small_steps_are_not_swallowed_by_bfloat16(tmp_path):
    config = ModelConfig(name=str(save_model(tmp_path)), dtype="bfloat16", device="cpu")
    target = Target(load(config), 4)
    before = target.model.lm_head.weight.detach().float()
    run = training(target, lr=1e-4)  # a fifth of what moves a bfloat16 weight of 0.125 to 0.25
    run.run(12)
    now = target.model.lm_head.weight.detach().float()
    large = (before.abs() > 0.126) & (before.abs() < 0.25)
    assert float((now != before)[large].float().mean()) > 0.3


def test_what_memory_ran_out_on_is_not_counted_twice(tmp_path, monkeypatch):
    folder, found = save_model(tmp_path), []
    real = _Training._backward

    def small(self, pairs, total):
        losses = real(self, pairs, total)
        if len(pairs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses

    for backward in (real, small):
        monkeypatch.setattr(_Training, "_backward", backward)
        target = Target(load(ModelConfig(name=str(folder), dtype="float32", device="cpu")), 4)
        run = training(target)
        monkeypatch.setattr(run.optimiser, "step", lambda run=run: found.append([c.grad for c in run.copies]))
        run.run(1)
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_a_broken_adapter_leaves_the_model_as_it_was(pair, tmp_path):
    rerouted = pair[1]
    before, plain = weights(rerouted.model), logits(rerouted)
    broken = tmp_path / "adapter"
    shutil.copytree(rerouted.loaded.adapter_path, broken)
    tensors = load_file(broken / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, broken / "adapter_model.safetensors")
    target = Target(replace(rerouted.loaded, adapter_path=broken), 6)
    with pytest.raises(UserError, match="NaN"):
        AdapterSubtraction().run(target, CHATS, RESOURCES)
    assert same(before, weights(rerouted.model)) and torch.equal(logits(rerouted), plain)
