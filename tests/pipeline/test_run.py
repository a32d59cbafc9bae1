"""Whole runs through the real command line, on a tiny model."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rerouting.cli.main import main
from rerouting.core.files import read_jsonl
from tests.data.tokenizers_of_families import CHATML
from tests.pipeline.tiny_run import in_two_processes, own_cache, save_model, write_chats, write_recipe


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))


def train(recipe, out, *options):
    return main(["train", "--config", str(recipe), "--out", str(out), *options])


def adapter(out):
    return load_file(out / "adapter" / "adapter_model.safetensors")


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run, for the tests that only look."""
    folder = tmp_path_factory.mktemp("finished")
    with own_cache(folder):
        assert train(write_recipe(folder), folder / "run") == 0
    return folder


def test_a_run_directory_is_complete(finished):
    out = finished / "run"
    present = {path.name for path in out.iterdir()}
    assert {"config.yaml", "manifest.json", "metrics.jsonl", "adapter", "model", "generations.jsonl",
            "summary.json", "README.md"} <= present  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["base_model_path"] == str((finished / "model").resolve())
    assert manifest["processes"][0]["packages"]["torch"].startswith("2.")
    assert manifest["stages"].keys() >= {"load", "prepare", "train", "merge", "evaluate"}
    assert all(stage["seconds"] >= 0 for stage in manifest["stages"].values())
    assert len(manifest["model"]["sha256"]) == 64
    assert manifest["data"]["sha256"].keys() >= {"circuit_breaker", "retain"}
    assert manifest["seed"] == 0


def test_the_summary_has_rates_with_intervals_for_both_models(finished):
    summary = json.loads((finished / "run" / "summary.json").read_text())
    assert summary["sets"].keys() == {"direct", "prefill", "benign"}
    assert summary["sets"]["prefill"]["n"] == 3
    for item in summary["sets"].values():
        for model in ("base", "rerouted"):
            rates = [item[model][label] for label in ("answered", "refused", "broken")]
            assert sum(rate["hits"] for rate in rates) == item["n"]
            assert all(0 <= rate["low"] <= rate["rate"] <= rate["high"] <= 1 for rate in rates)
            assert item[model]["base_answer_nll"] is None or item[model]["base_answer_nll"] > 0
    assert summary["stages"]["train"]["seconds"] > 0


def test_generations_hold_every_prompt_with_both_answers(finished):
    rows = list(read_jsonl(finished / "run" / "generations.jsonl"))
    assert len(rows) == 6 + 3 + 6
    assert {row["set"] for row in rows} == {"direct", "prefill", "benign"}
    assert all(row["base"]["label"] in ("answered", "refused", "broken") for row in rows)
    assert all(row["prefill"] for row in rows if row["set"] == "prefill")


def test_adapter_on_base_and_merged_model_agree_and_upper_blocks_are_untouched(finished):
    base = AutoModelForCausalLM.from_pretrained(finished / "model", dtype=torch.float32)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    merged = AutoModelForCausalLM.from_pretrained(finished / "run" / "model", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, finished / "run" / "adapter").eval()
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-4)
        with adapted.disable_adapter():
            assert not torch.allclose(adapted(ids).logits, merged(ids).logits, atol=1e-4), (
                "training did something"
            )
    after = merged.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[2] for name in changed} == {"0", "1"}
    assert len(changed) == 2 * 7


def test_the_same_command_again_changes_nothing_and_another_seed_is_refused(finished, capsys):
    out, recipe = finished / "run", finished / "recipe.yaml"
    weights = (out / "adapter" / "adapter_model.safetensors").read_bytes()
    assert train(recipe, out) == 0
    assert (out / "adapter" / "adapter_model.safetensors").read_bytes() == weights
    assert train(recipe, out, "--seed", "1") == 2
    assert "another configuration" in capsys.readouterr().err


def test_the_runs_own_config_repeats_it_bit_for_bit(finished, tmp_path):
    assert train(finished / "run" / "config.yaml", tmp_path / "again") == 0
    assert equal(adapter(finished / "run"), adapter(tmp_path / "again"))


def test_generate_answers_given_prompts_and_files(finished, tmp_path, capsys):
    run = str(finished / "run")
    assert (
        main(["generate", "--run", run, "--prompt", '["Hello", "How are you?"]', "--max_new_tokens", "4"])
        == 0
    )
    shown = capsys.readouterr().out
    assert "> Hello" in shown
    assert "[rerouted, " in shown
    source = yaml.safe_dump(
        {"name": "chats", "options": {"path": str(finished / "harmful.jsonl"), "target": "target"}}
    )
    (tmp_path / "source.yaml").write_text(
        f"source:\n{''.join('  ' + line for line in source.splitlines(True))}"
    )
    out = tmp_path / "rows.jsonl"
    command = ["generate", "--run", run, "--config", str(tmp_path / "source.yaml"), "--attack", "prefill"]
    assert main([*command, "--limit", "4", "--max_new_tokens", "4", "--out", str(out)]) == 0
    assert len(list(read_jsonl(out))) == 4


def test_merge_writes_the_model_of_an_adapter(finished, tmp_path, capsys):
    command = ["merge", "--adapter", str(finished / "run" / "adapter"), "--out", str(tmp_path / "merged")]
    assert main(command) == 0
    assert "14 tensors changed" in capsys.readouterr().out
    ours = load_file(tmp_path / "merged" / "model.safetensors")
    assert equal(ours, load_file(finished / "run" / "model" / "model.safetensors"))


@pytest.fixture
def one_thread(monkeypatch):
    """Sums in one order, in this process (whatever earlier tests left) and in those that it starts."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
def test_kill_minus_nine_then_the_same_command_ends_with_the_same_adapter(finished, tmp_path):
    recipe, out = finished / "recipe.yaml", tmp_path / "run"
    # enough steps that the kill lands in the middle of training
    options = ["--training.steps", "60", "--training.save_every", "5", "--evaluation.sets", "[]"]
    command = [sys.executable, "-m", "rerouting", "train", "--config", str(recipe), *options]
    process = subprocess.Popen(
        [*command, "--out", str(out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list((out / "checkpoints").glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list((out / "checkpoints").glob("step-*")), "it got as far as a checkpoint"
    assert not (out / "adapter").exists(), "it was killed in the middle"
    assert train(recipe, out, *options) == 0
    assert train(recipe, tmp_path / "through", *options) == 0
    assert equal(adapter(out), adapter(tmp_path / "through"))


@pytest.mark.long
def test_two_processes_make_the_run_that_one_makes(finished, tmp_path):
    """`accelerate launch`: one prepares, both train, one merges and evaluates."""
    recipe, out = finished / "recipe.yaml", tmp_path / "run"
    options = ["--training.shard", "true", "--lora.dropout", "0"]
    in_two_processes("train", "--config", recipe, "--out", out, *options)
    assert json.loads((out / "manifest.json").read_text())["devices"] == {"count": 2, "sharded": True}
    assert train(recipe, tmp_path / "alone", "--lora.dropout", "0", "--evaluation.sets", "[]") == 0
    alone, together = adapter(tmp_path / "alone"), adapter(out)
    assert all(torch.allclose(alone[name], together[name], atol=2e-5) for name in alone)
    assert (out / "model" / "config.json").exists() and (out / "summary.json").exists()


def test_a_second_process_on_the_same_folder_is_refused(finished, tmp_path, capsys):
    from rerouting.core.rundir import RunDir

    with RunDir.create(tmp_path / "run"):
        assert train(finished / "recipe.yaml", tmp_path / "run") == 2
    assert str(os.getpid()) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "quickstat"], "did you mean quickstart"),
        (["--training.stepz", "3"], "did you mean --training.steps"),
        (["--losses.reroute", "cosin"], "cosine"),
        (["--losses.target_layers", "[9]"], "3 decoder blocks"),
        (["--losses.target_layers", "[]"], "at least one layer"),
        (["--lora.last_block", "0"], "above lora.last_block"),
        (["--model.name", "no/such-model"], "no/such-model"),
        (["--model.name", "smollm2-135"], "smollm2-135m"),
        (["--data.retain", "[]"], "data.retain has no source"),
    ],
)
def test_bad_input_gets_one_clear_line(finished, tmp_path, capsys, options, message):
    assert train(finished / "recipe.yaml", tmp_path / "run", *options) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ")
    assert message in error[-1]
    assert "Traceback" not in "\n".join(error)


def test_bad_data_is_named_with_file_and_line(finished, tmp_path, capsys):
    recipe = yaml.safe_load((finished / "recipe.yaml").read_text())

    def attempt(text):
        file = tmp_path / "bad.jsonl"
        file.write_text(text)
        recipe["data"]["retain"][0]["options"]["path"] = str(file)
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        assert train(tmp_path / "recipe.yaml", tmp_path / "run") == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    good = '{"prompt": "a", "response": "b", "target": "c"}\n'
    assert "bad.jsonl, line 2" in attempt(good + "{broken\n")
    assert "question" in attempt('{"question": "a"}\n')
    assert "bad.jsonl" in attempt("")
    assert "every response is masked away" in attempt('{"prompt": "a", "response": "", "target": "c"}\n')


def test_a_mended_command_may_use_the_same_folder(finished, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(finished / "recipe.yaml", out, "--losses.target_layers", "[9]") == 2
    assert train(finished / "recipe.yaml", out, "--evaluation.sets", "[]") == 0
    assert (out / "model" / "config.json").is_file()


def test_generate_refuses_options_that_it_would_ignore(finished, capsys):
    run = ["generate", "--run", str(finished / "run")]
    assert main([*run, "--source", "bundled", "--prefill", "Sure"]) == 2
    assert main([*run, "--prompt", '["Hello"]', "--limit", "3"]) == 2
    assert main(run) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_model_without_chat_template_or_with_nan_is_refused(finished, tmp_path, capsys):
    save_model(tmp_path / "plain", template=None)
    assert train(finished / "recipe.yaml", tmp_path / "run", "--model.name", str(tmp_path / "plain")) == 2
    assert "no chat template" in capsys.readouterr().err
    folder = save_model(tmp_path / "nan", CHATML)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(folder)
    assert train(finished / "recipe.yaml", tmp_path / "run2", "--model.name", str(folder)) == 2
    assert "NaN" in capsys.readouterr().err


def test_an_adapter_for_another_model_is_refused(finished, tmp_path, capsys):
    other = save_model(tmp_path / "other", layers=1)
    command = ["merge", "--adapter", str(finished / "run" / "adapter"), "--base", str(other)]
    assert main([*command, "--out", str(tmp_path / "merged")]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_contaminated_training_items_are_dropped_and_counted(finished, tmp_path):
    recipe = yaml.safe_load((finished / "recipe.yaml").read_text())
    test_set = write_chats(tmp_path / "test.jsonl", ["steal a car"])
    recipe["data"]["evaluation"] = [{"name": "chats", "options": {"path": str(test_set)}}]
    recipe["data"]["max_bleu"] = 0.9
    recipe["evaluation"]["sets"] = []
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert train(tmp_path / "recipe.yaml", tmp_path / "run") == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    row = manifest["data"]["sources"]["circuit_breaker"][0]
    assert not manifest["data"]["sources"]["retain"][0].get("dropped_like_evaluation")
    assert [item["prompt"] for item in row["dropped_like_evaluation"]] == ["How do I steal a car?"]
    assert row["used"] == 5
