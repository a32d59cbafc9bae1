"""Invariants of the training loop on a tiny model, through the code that real runs use."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl
from rerouting.core.finder import Component
from rerouting.core.rundir import RunDir
from rerouting.data.formatting import Example
from rerouting.models.config import LoraConfig
from rerouting.models.lora import adapter_copy, adapter_parameters, add_lora, first_adapted, train_adapters
from rerouting.models.packing import register
from rerouting.models.trunk import Trunk
from rerouting.training import checkpoint
from rerouting.training.config import LossConfig, OptimConfig
from rerouting.training.loop import TrainingData, train
from rerouting.training.objective import Objective
from tests.models.tiny import FAMILIES

LOSSES = LossConfig(
    target_layers=(1, 2),
    reroute=Component("angle"),
    retain=Component("relative"),
    schedule=Component("constant", {"reroute": 1.0, "retain": 1.0}),
)
OPTIM = OptimConfig(
    steps=6, batch_size=8, micro_batch=8, learning_rate=1e-3, log_every=1, eval_every=3, save_every=2
)


def examples(count, seed, shortest=4, longest=12):
    generator = torch.Generator().manual_seed(seed)
    out = []
    for number in range(count):
        length = int(torch.randint(shortest, longest, (1,), generator=generator))
        ids = torch.randint(3, 100, (length,), generator=generator).tolist()
        out.append(Example(tuple(ids), 2, (True,) * length, f"{seed}-{number}"))
    return out


DATA = TrainingData(examples(12, 1), examples(20, 2), examples(4, 3), examples(4, 4))


def run(
    folder, optim=OPTIM, losses=LOSSES, data=DATA, seed=0, model=None, dropout=0.0, places=None, rows=False
):
    model = model or add_lora(
        FAMILIES["llama"](), LoraConfig(rank=4, alpha=4.0, dropout=dropout, init_b_std=0.02), 1, seed=seed
    )
    with RunDir.create(folder) as opened:
        train(
            model, data, losses, optim, opened, blocks=2, pad_id=0, padded_length=16, seed=seed, places=places
        )
    return read_jsonl(folder / "metrics.jsonl") if rows else adapter_copy(model)


def same(first, second, atol=0.0):
    return all(torch.allclose(first[name], second[name], rtol=0, atol=atol) for name in first)


def test_training_reroutes_and_logs_every_target_layer(tmp_path):
    run(tmp_path, replace(OPTIM, steps=30, learning_rate=5e-3))
    rows = list(read_jsonl(tmp_path / "metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert rows[0]["cosine"].keys() == {"1", "2"}
    assert rows[-1]["cosine"]["2"] < rows[0]["cosine"]["2"] - 0.2
    logged = {
        "reroute_loss",
        "retain_loss",
        "reroute_coefficient",
        "retain_coefficient",
        "norm",
        "gradient_norm",
    }
    assert (
        logged | {"retain_distance", "retain_relative", "tokens_per_second", "peak_memory_mib"}
        <= rows[0].keys()
    )
    assert {"held_out_cosine", "benign_loss", "benign_loss_base"} <= rows[-1].keys()


def test_the_same_seed_gives_the_same_adapter_bit_for_bit(tmp_path):
    assert same(run(tmp_path / "a", dropout=0.1), run(tmp_path / "b", dropout=0.1))
    assert not same(run(tmp_path / "c"), run(tmp_path / "d", seed=1))


def test_one_batch_of_eight_equals_eight_of_one(tmp_path):
    whole = run(tmp_path / "whole", OPTIM)
    pieces = run(tmp_path / "pieces", replace(OPTIM, micro_batch=1))
    assert same(whole, pieces, atol=2e-5)


def test_a_resumed_run_ends_with_the_adapter_of_an_uninterrupted_one(tmp_path):
    through = run(tmp_path / "through", dropout=0.1)
    # what a kill after step 4 leaves: the checkpoints up to there, and a log that went further
    run(tmp_path / "killed", dropout=0.1)
    last = checkpoint.found(tmp_path / "killed" / "checkpoints")[-1]
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    assert same(through, run(tmp_path / "killed", dropout=0.1))
    steps = [row["step"] for row in read_jsonl(tmp_path / "killed" / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_schedule_that_observes_goes_on_as_if_it_had_never_stopped(tmp_path):
    level = {"level": 0.02, "retain": 5.0, "gain": 0.5}
    losses = replace(LOSSES, schedule=Component("holding", level))
    through = run(tmp_path / "through", losses=losses)
    run(tmp_path / "killed", losses=losses)
    shutil.rmtree(checkpoint.found(tmp_path / "killed" / "checkpoints")[-1])
    state = json.loads((tmp_path / "killed" / "checkpoints" / "step-000004" / "state.json").read_text())
    assert state["schedule"]["now"] != 5.0, "it has moved, so that starting it anew would show"
    again = run(tmp_path / "killed", losses=losses)
    assert all(torch.equal(through[name], again[name]) for name in through)
    whole, resumed = (
        [row["retain_coefficient"] for row in read_jsonl(tmp_path / name / "metrics.jsonl")]
        for name in ("through", "killed")
    )
    assert whole == resumed and whole[0] == 5.0 and len(set(whole)) == 6


def test_old_checkpoints_are_removed_only_after_newer_ones(tmp_path):
    run(tmp_path)
    assert [path.name for path in checkpoint.found(tmp_path / "checkpoints")] == [
        "step-000004",
        "step-000006",
    ]


def test_a_damaged_checkpoint_is_named_and_kept(tmp_path):
    run(tmp_path)
    damaged = tmp_path / "checkpoints" / "step-000006" / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(UserError, match=r"step-000006.*cannot be read.*step-000004"):
        run(tmp_path)
    assert damaged.exists()


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match="another configuration"):
        run(tmp_path, replace(OPTIM, learning_rate=1e-4))
    with pytest.raises(UserError, match="another data"):
        run(tmp_path, data=replace(DATA, retain=examples(20, 9)))
    assert json.loads((tmp_path / "checkpoints" / "step-000006" / "state.json").read_text())["step"] == 6


def test_micro_batches_may_change_when_memory_asks(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "run")
    shutil.rmtree(checkpoint.found(tmp_path / "run" / "checkpoints")[-1])
    assert same(whole, run(tmp_path / "run", replace(OPTIM, micro_batch=2)), atol=2e-5)


@pytest.mark.parametrize("way", [{"recompute": True}, {"offload": True}])
def test_ways_to_save_memory_change_nothing_else(tmp_path, way):
    whole, thrifty = (
        run(tmp_path / "whole", dropout=0.1),
        run(tmp_path / "way", replace(OPTIM, **way), dropout=0.1),
    )
    assert same(whole, thrifty, atol=1e-6)


def test_memory_that_runs_out_leads_to_smaller_batches_and_then_to_recomputation(
    tmp_path, monkeypatch, capsys
):
    data = replace(DATA, held_out_harmful=())
    whole, taken = run(tmp_path / "whole", data=data), Objective.reroute
    tried = []

    def small(self, examples, *rest):
        tried.append(
            (self.micro_batch, any("forward" in vars(module) for module in self.trunk._found.blocks))
        )
        if tried[-1] != (1, True):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return taken(self, examples, *rest)

    monkeypatch.setattr(Objective, "reroute", small)
    assert same(whole, run(tmp_path / "small", replace(OPTIM, micro_batch=4), data=data), atol=2e-5)
    assert tried[:4] == [(4, False), (2, False), (1, False), (1, True)]
    assert "going on with recomputation" in capsys.readouterr().err


def test_memory_for_not_even_one_sequence_says_what_to_do(tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Objective, "retain", never)
    with pytest.raises(UserError, match=r"memory is too small for one sequence.*training\.offload"):
        run(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_blocks_below_the_first_adapter_run_once(packed):
    def gradients(shared):
        model = add_lora(FAMILIES["llama"](), LoraConfig(rank=4, init_b_std=0.05, first_block=1), 2, seed=0)
        model.set_attn_implementation(register(torch.device("cpu")))
        assert first_adapted(model) == 1
        losses = replace(LOSSES, target_layers=(1, 3))
        objective = Objective(
            Trunk(model, 3), losses, pad_id=0, padded_length=16, micro_batch=4, packed=packed, shared=shared
        )
        calls = []
        model.get_base_model().model.layers[0].register_forward_hook(lambda *_: calls.append(1))
        measures = objective.reroute(examples(6, 1), 1.0, 0, lambda loss: loss.backward())
        held = objective.retain(examples(6, 2), 1.0, lambda loss: loss.backward())
        grads = {name: item.grad for name, item in adapter_parameters(model).items()}
        return grads, len(calls), measures.loss, held.loss, measures.mean("cosine"), held.mean("distance")

    (ours, once, *values), (theirs, twice, *expected) = gradients(1), gradients(0)
    assert (once, twice) == (4, 8)
    assert (
        all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs) and len(ours) == 2 * 7 * 2
    )
    for value, other in zip(values, expected, strict=True):
        assert value == pytest.approx(other, rel=1e-5, abs=1e-6)


def with_beginning(chats):
    return [replace(one, ids=(7, 8, 9, *one.ids), mask=(False,) * 3 + one.mask) for one in chats]


def test_what_sequences_have_in_common_runs_once():
    def gradients(once):
        model = add_lora(FAMILIES["llama"](), LoraConfig(rank=4, init_b_std=0.05), 2, seed=0)
        model.set_attn_implementation(register(torch.device("cpu")))
        losses = replace(LOSSES, target_layers=(1, 3))
        objective = Objective(
            Trunk(model, 3), losses, pad_id=0, padded_length=16, micro_batch=4, packed=True, once=once
        )
        passed = []
        model.get_base_model().model.layers[0].register_forward_hook(
            lambda *call: passed.append(call[-1].shape[1])
        )
        chats = with_beginning(examples(6, 1))
        rerouted = objective.reroute(chats, 1.0, 0, lambda loss: loss.backward())
        held = objective.retain(chats, 1.0, lambda loss: loss.backward())
        return adapter_parameters(model), sum(passed), rerouted, held

    (ours, few, *found), (theirs, many, *expected) = gradients(True), gradients(False)
    for name, item in theirs.items():
        torch.testing.assert_close(ours[name].grad, item.grad, rtol=1e-4, atol=1e-6)
    for own, other in zip(found, expected, strict=True):
        assert own.loss == pytest.approx(other.loss, rel=1e-5)
        assert (own.tokens, own.passed, own.padding) == (other.tokens, other.passed, 0)
        assert own.common > 0 == other.common
    assert many - few == 2 * sum(own.common for own in found), "reference and adapted pass"


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_with_dropout_nothing_runs_once_for_several(tmp_path, dropout):
    """Each sequence draws noise of its own, as in the paper."""
    model = add_lora(FAMILIES["llama"](), LoraConfig(rank=4, dropout=dropout, init_b_std=0.02), 1, seed=0)
    model.set_attn_implementation(register(torch.device("cpu")))
    rows = list(
        run(
            tmp_path,
            data=replace(
                DATA, circuit_breaker=with_beginning(DATA.circuit_breaker), retain=with_beginning(DATA.retain)
            ),
            model=model,
            rows=True,
        )
    )
    assert [row["padding"] for row in rows] == [0.0] * OPTIM.steps
    assert all((row["common"] > 0.1) is (dropout == 0.0) for row in rows)


def test_the_base_models_own_dropout_stays_off():
    base = FAMILIES["gpt2"]()
    own = [module for module in base.modules() if isinstance(module, torch.nn.Dropout)]
    for module in own:
        module.p = 0.3
    assert own
    model = add_lora(base, LoraConfig(rank=4, dropout=0.0, init_b_std=0.0), 1, seed=0).eval()
    train_adapters(model, True)
    objective = Objective(Trunk(model, 2), LOSSES, pad_id=0, padded_length=16, micro_batch=4)
    assert objective.retain(examples(4, 1), 1.0, None).loss == 0.0


def test_nan_stops_the_run(tmp_path):
    model = add_lora(FAMILIES["llama"](), LoraConfig(rank=4, init_b_std=0.02), 1, seed=0)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match=r"step 1: .* is nan"):
        run(tmp_path, model=model)


def test_adapters_that_do_not_move_stop_the_run(tmp_path):
    with pytest.raises(UserError, match=r"adapters did not move"):
        run(tmp_path, replace(OPTIM, learning_rate=0.0))


def test_a_benign_loss_that_runs_away_stops_the_run(tmp_path):
    wild = replace(OPTIM, steps=40, learning_rate=0.3, max_grad_norm=None, max_benign_rise=0.05)
    with pytest.raises(UserError, match=r"benign loss rose .*max_benign_rise"):
        run(tmp_path, wild)
    assert read_jsonl(tmp_path / "metrics.jsonl")[-1]["benign_loss"] > 0, "what was measured is logged"
