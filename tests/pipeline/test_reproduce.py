"""`rerouting reproduce`: bit-equal on the same machine, and every kind of difference found and named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from rerouting.cli.main import main
from rerouting.core.files import read_jsonl
from tests.pipeline.tiny_run import own_cache, write_recipe


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run, never written to."""
    folder = tmp_path_factory.mktemp("finished")
    with own_cache(folder):
        assert main(["train", "--config", str(write_recipe(folder)), "--out", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it that may be damaged; its data and model are copies too."""
    folder = tmp_path / "mine"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("cache"))
    for file in (folder / "run" / "config.yaml", folder / "run" / "manifest.json"):
        file.write_text(file.read_text().replace(str(finished), str(folder)))
    edit(folder / "run", config={"sha256": sha(folder / "run" / "config.yaml")})
    return folder / "run"


def sha(file):
    from rerouting.core.files import sha256_file

    return sha256_file(file)


def edit(run, **facts):
    """Change facts of a run's manifest, as if they had been recorded."""
    file = run / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def reproduce(run, *options, out=None):
    out = out or run.parent / "again"
    status = main(["reproduce", str(run), "--out", str(out), *options])
    report = out / "reproduced.json"
    return status, json.loads(report.read_text()) if report.exists() else {}


def named(report):
    return {one["what"] for one in report["before"]}


def test_a_run_repeats_bit_for_bit_from_its_own_record(run, capsys):
    status, report = reproduce(run)
    shown = capsys.readouterr().out
    assert status == 0 and report["bit_equal"] is True, report
    assert report["before"] == []
    assert {name: part["same"] for name, part in report["parts"].items()} == dict.fromkeys(
        ("adapter", "metrics", "generations", "rates"), True
    )
    assert report["parts"]["adapter"]["bytes_equal"] is True
    assert report["completions"] == {"run": ["sampled"], "repeated": ["sampled"], "shared_cache": False}
    assert "bit-equal" in shown and "adapter" in shown and "15 prompts" in shown
    status, again = reproduce(run)
    assert (status, again) == (0, report), "a finished repetition is compared again, not made again"


def test_without_out_the_new_run_stands_beside_the_old_one(run, monkeypatch):
    monkeypatch.chdir(run)
    assert main(["reproduce", ".", "--cached"]) == 0
    report = json.loads((run.parent / "run-again" / "reproduced.json").read_text())
    assert report["bit_equal"] and report["completions"]["shared_cache"]


@pytest.mark.long
def test_a_resumed_run_repeats_bit_for_bit(finished, tmp_path):
    recipe, out = finished / "recipe.yaml", tmp_path / "run"
    options = ["--training.steps", "40", "--training.save_every", "4", "--evaluation.sets", "[]"]
    command = ["train", "--config", str(recipe), "--out", str(out), *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "rerouting", *command],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((out / "checkpoints").glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "adapter").exists(), "it was killed in the middle"
    assert main(command) == 0
    status, report = reproduce(out, out=tmp_path / "again")
    assert report["processes"] == {"run": 2, "repeated": 1}
    assert status == 0, report
    assert report["parts"].keys() == {"adapter", "metrics"}, "nothing was evaluated"


def test_relative_paths_start_where_the_run_was_started(tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path)
    text = recipe.read_text().replace(f"{tmp_path}/", "")
    assert "path: harmful.jsonl" in text and "name: model\n" in text
    recipe.write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "recipe.yaml", "--out", "run"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["reproduce", "../run", "--out", "again"]) == 0
    assert (tmp_path / "elsewhere" / "again" / "reproduced.json").exists()


def test_a_changed_data_file_stops_it_and_is_named_anyway(run, capsys):
    file = run.parent / "benign.jsonl"
    file.write_text(file.read_text().replace("bake bread", "bake cakes"))
    status, report = reproduce(run)
    error = capsys.readouterr().err
    assert status == 2 and not report and not (run.parent / "again").exists()
    assert "retain[0]" in error and "benign.jsonl" in error and "held_out_benign[0]" in error
    assert "circuit_breaker" not in error and "--anyway" in error
    status, report = reproduce(run, "--anyway")
    assert status == 1 and not report["bit_equal"]
    assert any(name.startswith("retain[0]") for name in named(report))
    assert {"stream retain", "stream held_out_benign"} <= named(report)
    assert report["parts"]["adapter"]["largest_difference"] > 0
    assert report["parts"]["metrics"]["differing_steps"][0] == 1


def test_a_lost_data_file_is_named(run, capsys):
    (run.parent / "benign_test.jsonl").unlink()
    assert reproduce(run)[0] == 2
    error = capsys.readouterr().err
    assert "sets[2]" in error and "benign_test.jsonl" in error


def test_changed_weights_stop_it_before_the_training(run, capsys):
    weights = run.parent / "model" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"][0] += 0.5
    save_file(tensors, weights, metadata={"format": "pt"})
    status, report = reproduce(run)
    assert status == 2 and not report
    assert "weights of the base model" in capsys.readouterr().err
    assert not (run.parent / "again" / "streams").exists()
    status, report = reproduce(run, "--anyway")
    assert status == 1 and "weights of the base model" in named(report)
    assert report["parts"]["adapter"]["same"] is False


def test_another_seed_in_the_record_is_a_contradiction(run, capsys):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0\n", "seed: 1\n", 1))
    status, report = reproduce(run)
    error = capsys.readouterr().err
    assert status == 2 and not report
    assert "seed in config.yaml: 0 (manifest.json) → 1" in error and "edited" in error
    status, report = reproduce(run, "--anyway")
    assert status == 1 and report["parts"]["adapter"]["differing"] > 0
    assert {"seed in config.yaml", "config.yaml"} <= named(report)


def test_another_option_in_the_record_is_found_by_its_hash(run, capsys):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.001", "learning_rate: 0.002"))
    assert reproduce(run)[0] == 2
    assert "config.yaml" in capsys.readouterr().err


def test_other_versions_and_hardware_are_listed_and_stop_nothing(run):
    processes = json.loads((run / "manifest.json").read_text())["processes"]
    older = json.loads(json.dumps(processes[0]))
    older["packages"]["torch"] = "2.0.0"
    older |= {"processor": "Abacus", "code": "0" * 64, "batching": older["batching"] | {"micro_batch": 1}}
    edit(run, processes=[older, *processes])
    status, report = reproduce(run)
    assert status == 0, "nothing that was computed differs"
    assert named(report) == {"torch", "processor", "code of rerouting", "batching"}
    torch_row = next(one for one in report["before"] if one["what"] == "torch")
    assert (
        torch_row["recorded"] == f"2.0.0 then {torch.__version__}" and torch_row["now"] == torch.__version__
    )


def test_the_recorded_number_of_threads_is_used(run, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", lambda number: seen.append(number))
    processes = json.loads((run / "manifest.json").read_text())["processes"]
    edit(run, processes=[processes[0] | {"threads": 7}])
    _, report = reproduce(run)
    assert seen == [7, torch.get_num_threads()]
    assert "threads: 1 → 7, as recorded" in capsys.readouterr().err
    assert named(report) == {"threads"}, "it could not be set, and that is said"


def test_a_changed_file_of_ones_own_is_named(tmp_path, capsys):
    recipe = write_recipe(tmp_path)
    own = tmp_path / "mine.py"
    own.write_text("from rerouting.losses.reroute.angle import Angle as Mine\n")
    config = yaml.safe_load(recipe.read_text())
    config["losses"]["reroute"] = f"{own}:Mine"
    recipe.write_text(yaml.safe_dump(config))
    assert main(["train", "--config", str(recipe), "--out", str(tmp_path / "run")]) == 0
    own.write_text(own.read_text() + "# changed\n")
    assert reproduce(tmp_path / "run")[0] == 2
    assert f"file {own}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("adapter", "adapter/adapter_model.safetensors"),
        ("metrics", "metrics.jsonl"),
        ("generations", "generations.jsonl"),
        ("rates", "summary.json"),
    ],
)
@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_missing_or_damaged_part_is_named_and_the_others_compared(finished, repeated, part, file, fault):
    run, again = repeated
    shutil.copy(finished / "run" / file, run / file)
    original = (run / file).read_bytes()
    if fault == "missing":
        (run / file).unlink()
    else:
        (run / file).write_bytes(original[: len(original) // 2])
    try:
        status, report = reproduce(run, out=again)
    finally:
        (run / file).write_bytes(original)
    assert status == 1
    assert report["parts"][part]["same"] is None
    assert file in report["parts"][part]["note"] and fault in report["parts"][part]["note"]
    assert all(other["same"] is True for name, other in report["parts"].items() if name != part)
    assert ("adapter of the run" in named(report)) == (part == "adapter" and fault == "damaged")


@pytest.fixture(scope="module")
def repeated(finished, tmp_path_factory):
    """A copy of the finished run, and its finished repetition: comparing again takes no training."""
    folder = tmp_path_factory.mktemp("repeated")
    shutil.copytree(finished / "run", folder / "run")
    with own_cache(folder):
        assert reproduce(folder / "run", out=folder / "again")[0] == 0
    return folder / "run", folder / "again"


def test_an_answer_a_rate_and_a_tensor_that_differ_are_named(repeated):
    run, again = repeated
    kept = {
        name: (again / name).read_bytes() for name in ("generations.jsonl", "summary.json", "metrics.jsonl")
    }
    weights = again / "adapter" / "adapter_model.safetensors"
    kept_weights = weights.read_bytes()
    rows = read_jsonl(again / "generations.jsonl")
    rows[2]["rerouted"]["answer"] += "!"
    (again / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = json.loads(kept["summary.json"])
    summary["sets"]["benign"]["rerouted"]["answered"]["rate"] = 0.25
    (again / "summary.json").write_text(json.dumps(summary))
    log = read_jsonl(again / "metrics.jsonl")
    log[-1]["retain_loss"] += 0.5
    log[0]["seconds"] += 9
    (again / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    tensors = load_file(weights)
    name = sorted(tensors)[3]
    tensors[name].view(-1)[1] += 0.125
    save_file(tensors, weights, metadata={"format": "pt"})
    try:
        status, report = reproduce(run, out=again)
    finally:
        weights.write_bytes(kept_weights)
        for file, content in kept.items():
            (again / file).write_bytes(content)
    parts = report["parts"]
    assert status == 1
    assert parts["adapter"]["differing"] == 1 and parts["adapter"]["largest_in"] == name
    assert parts["adapter"]["largest_difference"] == pytest.approx(0.125)
    assert parts["metrics"]["differing_steps"] == [log[-1]["step"]]
    assert parts["metrics"]["largest_differences"] == {"retain_loss": pytest.approx(0.5)}
    assert parts["generations"]["other_answers"] == {"base": [], "rerouted": [rows[2]["id"]]}
    assert list(parts["rates"]["differing"]) == ["benign.rerouted.answered.rate"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "config.yaml is missing"),
        (lambda run: (run / "config.yaml").write_text("seed: [0"), "not YAML"),
        (lambda run: (run / "manifest.json").write_text("{"), "manifest.json: whole → damaged"),
        (lambda run: (run / "manifest.json").unlink(), "manifest.json: there → missing"),
        (lambda run: (run / "README.md").unlink(), "not finished"),
        (lambda run: shutil.rmtree(run), "not a run directory"),
    ],
)
def test_a_record_that_cannot_be_followed_is_one_clear_line(run, capsys, harm, message):
    harm(run)
    assert reproduce(run)[0] == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_a_run_is_not_repeated_in_itself(run, capsys):
    assert reproduce(run, out=run)[0] == 2
    assert "--out" in capsys.readouterr().err
    assert not (run / "reproduced.json").exists()
