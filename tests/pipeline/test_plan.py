"""`rerouting plan` through the command line: no weights, no network, no measurement where a rate is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerouting.cli.main import main
from rerouting.models import loading
from rerouting.pipeline import plan as planning
from tests.models.tiny import FAMILIES
from tests.pipeline.tiny_run import write_recipe


@pytest.fixture(autouse=True)
def offline_and_unmeasured(monkeypatch):
    monkeypatch.setattr(loading, "hub_answers", lambda: False)

    def measured(device, dtype):
        raise AssertionError("nothing is measured where a rate is given")

    monkeypatch.setattr(planning, "measured_rate", measured)


def planned(capsys, *arguments: str) -> dict:
    assert main(["plan", "--json", "--rate", "0.001", *arguments]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def write_streams(run: Path) -> None:
    (run / "streams").mkdir(parents=True)
    for name, lengths in (("circuit_breaker", (2, 4)), ("retain", (6, 10))):
        rows = [
            {"ids": [1] * length, "n_prompt": 1, "mask": [True] * length, "chat_id": ""} for length in lengths
        ]
        (run / "streams" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_tiny_recipe(tmp_path, capsys):
    recipe = write_recipe(tmp_path)
    (tmp_path / "model" / "model.safetensors").unlink()
    found = planned(capsys, "--recipe", str(recipe), "--tokens_per_step", "80", "--efficiency", "0.5")
    # 2 blocks of 7680 matrix weights (tests/models/test_shape.py), 80 tokens in a step of 4 + 4
    assert found["tflop"]["plain"]["frozen"] * 1e12 == pytest.approx(80 * 6 * 2 * 7680)
    assert found["parameters"]["trainable"] == 4 * 2 * (240 + 224)
    assert (found["parameters"]["trunk_blocks"], found["parameters"]["blocks"]) == (2, 3)
    step = found["tflop"]["plain"]["total"] / (0.001 * 0.5)
    assert found["time"]["plain"] == pytest.approx({"step": step, "run": 6 * step})
    assert found["memory"]["plain"]["weights"] == 4 * found["parameters"]["total"]
    assert found["memory"]["plain"]["total"] > found["memory"]["recompute"]["total"]
    assert found["model"]["dtype"] == "float32" and found["model"]["device"] == "cpu"


def test_lengths_of_a_run(tmp_path, capsys):
    recipe = write_recipe(tmp_path)
    write_streams(tmp_path / "run")
    found = planned(
        capsys, "--config", str(recipe), "--run", str(tmp_path / "run"), "--training.batch_size", "8"
    )
    harmful, retain = found["tokens"]["circuit_breaker"], found["tokens"]["retain"]
    assert (harmful["sequences"], harmful["mean"], harmful["mean_square"], harmful["longest"]) == (
        8,
        3,
        10,
        4,
    )
    assert (retain["mean"], retain["mean_square"], retain["longest"]) == (8, 68, 10)
    assert found["tokens"]["step"] == 8 * 3 + 8 * 8 and "true lengths" in found["tokens"]["source"]


def test_texts_before_requests_are_counted(capsys):
    arguments = ("--recipe", "default", "--rate", "1", "--data.retain_contexts", "0.5")
    found = planned(capsys, *arguments)["tokens"]
    alone = planned(capsys, *arguments, "--data.contexts", "0", "--data.retain_contexts", "0")["tokens"]
    answer = 112  # sampling.max_new_tokens, 1 to 4 of them
    assert found["circuit_breaker"]["mean"] == pytest.approx(
        alone["circuit_breaker"]["mean"] + 0.25 * 2.5 * answer
    )
    assert found["retain"]["mean"] == pytest.approx(alone["retain"]["mean"] + 0.5 * 2.5 * answer)
    assert found["retain"]["longest"] == alone["retain"]["longest"] + 4 * answer
    assert "answers before requests with texts" in found["source"] and "texts" not in alone["source"]
    short = alone["retain"]["mean"]
    squares = 0.5 * short**2 + 0.125 * sum((short + texts * answer) ** 2 for texts in (1, 2, 3, 4))
    assert found["retain"]["mean_square"] == pytest.approx(squares)


def test_the_papers_recipe_offline(capsys):
    found = planned(
        capsys, "--recipe", "llama-3-8b", "--model.device", "cuda", "--model.revision", "none-such"
    )
    assert found["parameters"]["total"] == 8_030_261_248 and found["parameters"]["trainable"] == 27_525_120
    assert found["tokens"]["step"] == 12_000 and 288 < found["tflop"]["plain"]["total"] < 355
    assert "built-in published shape llama-3-8b, because" in found["model"]["shape"]
    assert found["memory"]["plain"]["weights"] == 2 * 8_030_261_248


def test_the_embedded_recipe_as_a_table(capsys):
    assert main(["plan", "--recipe", "quickstart", "--rate", "0.2"]) == 0
    shown = capsys.readouterr().out
    assert "134,515,008" in shown and "16 of 30 blocks" in shown and "1,139,712" in shown
    assert "config of smollm2-135m" in shown and "0.2 (given)" in shown and "assumed" in shown


def test_the_rate_is_measured_on_the_runs_device(tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(planning, "measured_rate", lambda device, dtype: asked.append((device, dtype)) or 0.5)
    recipe = write_recipe(tmp_path)
    assert main(["plan", "--recipe", str(recipe), "--devices", "2", "--strategy", "fsdp2"]) == 0
    shown = capsys.readouterr().out
    assert [(str(device), str(dtype)) for device, dtype in asked] == [("cpu", "torch.float32")]
    assert "measured here: float32 on cpu" in shown and "2 × fsdp2" in shown and "gathered" in shown
    assert "communication" in shown


def test_experts_are_noted(tmp_path, capsys):
    FAMILIES["mixtral"]().config.save_pretrained(tmp_path)
    found = planned(capsys, "--model.name", str(tmp_path), "--losses.target_layers", "[1, 2]")
    assert any("experts" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--devices", "0"], "--devices is 0"),
        (["--efficiency", "1.5"], "give a share"),
        (["--rate", "-1"], "--rate is -1"),
        (["--run", "runs/none"], "add --config runs/none/config.yaml"),
        (
            ["--recipe", "quickstart", "--run", "runs/none"],
            "there is no runs/none/streams/circuit_breaker.jsonl",
        ),
        (["--model.name", "nobody/nothing"], "was not found"),
        (["--recipe", "quickstart", "--losses.target_layers", "[31]"], "losses.target_depths null puts"),
        (
            ["--recipe", "quickstart", "--losses.target_layers", "[31]", "--losses.target_depths", "null"],
            "has 30 decoder blocks",
        ),
        (["--model.device", "nowhere"], "device 'nowhere' cannot be used"),
        (["--shape", "llama-4"], "llama-3-8b"),
        (["--tokens-per-step", "9"], "did you mean --tokens_per_step?"),
    ],
)
def test_mistakes(arguments, said, capsys):
    assert main(["plan", *arguments]) == 2
    shown = capsys.readouterr().err
    assert said in shown and "Traceback" not in shown
