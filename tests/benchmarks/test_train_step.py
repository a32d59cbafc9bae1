"""The comparison of training steps: its gate, its counting by hand, and a whole run on a tiny model."""

import json
import random
from dataclasses import replace
from statistics import mean

import pytest
import torch

from benchmarks import step_ways, train_step
from benchmarks.step_inputs import authors_lengths, histogram, shaped
from benchmarks.step_ways import ABLATIONS, AUTHORS, LONGEST, NO_HEAD, OURS, Examples, Setting, gate, make
from rerouting.models.config import LoraConfig
from rerouting.models.packing import register
from tests.models.tiny import FAMILIES

SETTING = Setting((1, 2), 3, (8, 8, 16), LoraConfig(rank=4, alpha=4.0, dropout=0.05, init_b_std=0.002))
EVERY = [AUTHORS, NO_HEAD, LONGEST, OURS, *(f"ours without {change}" for change in ABLATIONS)]
TINY = ["--shape", "tiny", "--device", "cpu", "--dtype", "float32", "--targets", "1", "2", "--pad", "16", "16", "32",
        "--repeats", "2"]  # fmt: skip


def tiny(family="llama"):
    model = FAMILIES[family]()
    model.set_attn_implementation(register(torch.device("cpu")))
    return model


def batch(*lengths):
    draw = random.Random(0)
    return Examples(*([step_ways.random_example(draw, 100, *one) for one in part] for part in lengths))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_every_way_passes_the_gate(family):
    found = gate(tiny(family), SETTING, EVERY)
    assert list(found) == EVERY[1:] and len(found) >= 3


@pytest.mark.parametrize(
    "broken", [{"targets": (1,)}, {"weights": (8.75, 1.26)}], ids=["another loss", "another gradient"]
)
def test_the_gate_refuses(broken, monkeypatch):
    original = step_ways.ours_step
    monkeypatch.setattr(
        step_ways, "ours_step", lambda base, setting, on: original(base, replace(setting, **broken), on)
    )
    with pytest.raises(SystemExit, match="no parity, nothing timed: ours differs"):
        gate(tiny(), SETTING, EVERY)


def test_the_gate_refuses_nan(monkeypatch):
    def spoilt(base, setting, on):
        way = original(base, setting, on)
        right = way.gradients

        def gradients(examples, seed):
            losses = right(examples, seed)
            next(reversed(way.adapters().values())).grad.fill_(float("nan"))
            return losses

        way.gradients = gradients
        return way

    original = step_ways.ours_step
    monkeypatch.setattr(step_ways, "ours_step", spoilt)
    with pytest.raises(SystemExit, match=r"nan \(gradient"):
        gate(tiny(), SETTING, [AUTHORS, OURS])


def test_the_authors_way_recomputes_and_shares_the_frozen_weights():
    base = tiny()
    way = make(base, SETTING, AUTHORS)
    way.start_as(make(base, SETTING, OURS))
    layers = way.model.get_base_model().model.layers
    calls = []
    layers[1].mlp.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    before = {name: item.detach().clone() for name, item in way.adapters().items()}
    way.step(batch([(4, 4)], [(3, 5)]), 1)
    assert calls == [False] * 2 + [True] * 4, (
        "two reference passes, two adapted ones, both again for the backward pass"
    )
    weight = layers[1].mlp.up_proj.base_layer.weight
    assert weight.data_ptr() == base.model.layers[1].mlp.up_proj.weight.data_ptr()
    assert all(
        not torch.equal(item, before[name]) for name, item in way.adapters().items() if "lora_B" in name
    )
    assert not any("lora" in name for name, _ in base.named_parameters())


@pytest.mark.parametrize("name", ["llama-3-8b", "mistral-7b", "smollm2-135m"])
def test_shapes_keep_their_proportions(name):
    model = shaped(
        name, torch.device("cpu"), torch.bfloat16, hidden_size=256, num_hidden_layers=1, vocab_size=64
    )
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    width, head = (256, 64) if name == "smollm2-135m" else (256, 128)
    assert attention.q_proj.out_features == width and attention.head_dim == head
    assert mlp.up_proj.out_features == 256 * (1536 if head == 64 else 14336) // (576 if head == 64 else 4096)
    assert model.dtype is torch.bfloat16 and not any(item.requires_grad for item in model.parameters())


def test_minimum_flop_by_hand():
    block = 32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 32 * 48
    adapters = 4 * (64 + 48 + 48 + 64 + 80 + 80 + 80)
    harmful = 2 * (6 * (block + adapters) * (3 + 5) + 8 * 32 * (3 * 3 + 5 * 5))
    retain = 3 * (6 * (block + adapters) * 7 + 8 * 32 * 7 * 7)
    examples = batch([(1, 2), (2, 3)], [(3, 4)])
    assert train_step.minimum_flop(tiny(), SETTING, examples) == pytest.approx(harmful + retain, rel=1e-12)
    assert examples.tokens == 15


@pytest.mark.parametrize(("drop", "expected"), [(0.5, 11_200), (0.0, 13_200)])
def test_the_authors_mix(drop, expected):
    draw = random.Random(0)
    drawn = [authors_lengths(draw, drop) for _ in range(20_000)]
    assert 16 * mean(sum(harmful) + retain for harmful, retain in drawn) == pytest.approx(expected, rel=0.02)
    assert max(max(harmful) for harmful, _ in drawn) == 512
    assert max(retain for _, retain in drawn) == 1024


def test_histogram():
    rows = histogram([1, 2, 3, 8], 8, rows=4)
    assert [row.split()[-1] for row in rows] == ["2", "1", "0", "1"]
    assert rows[0].count("█") == 40 and rows[1].count("█") == 20


@pytest.mark.long
def test_a_run(capsys):
    train_step.main([*TINY, "--no-memory", "--longest", "--ablate", "--json"])
    *table, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert found["speedup_vs_authors"] > 0 and found["speedup_vs_no_head"] > 0
    authors, ours = (sum(found["ways"][name]["wall_seconds"]) for name in ("authors", "ours"))
    assert found["steps_a_second_vs_authors"] == pytest.approx(authors / ours)
    assert found["seconds_150_steps"] == pytest.approx(150 * found["ways"][OURS]["seconds"]["median"])
    assert list(found["ways"]) == EVERY and found["peak_memory_ratio"] is None
    assert found["parity"][OURS]["loss"] <= 1e-5 and found["parity"][OURS]["gradient"] <= 1e-4
    assert len(found["real_tokens"]) == 2 and found["minimum_tflop"] > 0 and found["options"]["batch"] == 2
    authors, ours = found["ways"][AUTHORS]["losses"][0], found["ways"][OURS]["losses"][0]
    assert ours == pytest.approx(authors, rel=0.5)  # but for dropout
    assert any(line.startswith("ours ") for line in table)


@pytest.mark.slow
def test_memory_is_measured_in_another_process():
    assert train_step.peak_elsewhere([*TINY, "--data", "worst", "--batch", "8"], OURS) > 0.1


@pytest.mark.slow
def test_quickstart_streams_and_worst_case(tmp_path, capsys):
    run = tmp_path / "streams"
    run.mkdir()
    row = {"ids": [200, 5, 6, 7], "n_prompt": 2, "mask": [False] * 2 + [True] * 2, "chat_id": "a"}
    too_long = row | {"ids": list(range(40))}
    for name in ("circuit_breaker", "retain", "held_out_harmful", "held_out_benign"):
        rows = [row, row, too_long]
        (run / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    tokens = {}
    for data in ("quickstart", "worst"):
        train_step.main([*TINY, "--no-memory", "--data", data, "--run", str(run), "--json"])
        tokens[data] = json.loads(capsys.readouterr().out.splitlines()[-1])["real_tokens"]
    assert tokens == {"quickstart": [16, 16], "worst": [128, 128]}


@pytest.mark.slow
def test_sweep(tmp_path, capsys):
    options = [
        "--sweep",
        "--repeats",
        "1",
        "--pad",
        "8",
        "8",
        "16",
        "--out",
        str(tmp_path / "sweep"),
        "--json",
    ]
    train_step.main([*TINY, *options])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["rows"] == found["rows"]
    assert [row["tokens"] for row in found["rows"]] == [2 * b * t for b in (1, 2) for t in (2, 4, 8, 12, 16)]
    assert sum(AUTHORS in row for row in found["rows"]) == 4
    assert all(row[OURS] > 0 for row in found["rows"])
