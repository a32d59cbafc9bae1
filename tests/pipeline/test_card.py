"""The model card of a run: the hub reads its front matter, its snippet loads the adapter, and it says what is known."""

import json
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from rerouting.cli.main import main
from rerouting.core.config import load_config
from rerouting.models.embedded import EMBEDDED
from rerouting.pipeline.card import datasets_of, hub_name
from rerouting.training.config import RunConfig
from tests.pipeline.tiny_run import own_cache, write_recipe

FINDING = {
    "name": "nll", "part": "", "unit": "nats", "n": 12, "base": 0.5, "rerouted": 0.625, "base_interval": [0.4, 0.6],
    "rerouted_interval": [0.5, 0.75], "difference": 0.125, "interval": [0.0, 0.25], "p": None, "unscored": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    with own_cache(folder):
        assert main(["train", "--config", str(write_recipe(folder)), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def card(run, folder="adapter"):
    return ModelCard.load(run / folder / "README.md")


def rate(hits, n):
    from rerouting.core.stats import Rate

    return Rate(hits, n).as_dict()


def test_a_finished_run_has_a_card_beside_its_adapter_and_as_its_page(finished):
    data = card(finished).data.to_dict()
    assert data["library_name"] == "peft" and data["pipeline_tag"] == "text-generation"
    assert "circuit-breakers" in data["tags"]
    assert "base_model" not in data and "license" not in data, "a folder on this machine is on no hub"
    summary = json.loads((finished / "summary.json").read_text())["sets"]
    results = {one.dataset_name: {} for one in card(finished).data.eval_results}
    for one in card(finished).data.eval_results:
        results[one.dataset_name][one.metric_type] = one.metric_value
    assert results.keys() == {"direct", "prefill", "benign"}
    for name, shares in results.items():
        own = summary[name]["rerouted"]
        assert shares == {label: pytest.approx(own[label]["rate"], abs=1e-4) for label in shares}
    assert card(finished, ".").data.to_dict() == data
    assert "## Files" in card(finished, ".").text and "## Files" not in card(finished).text


def test_the_text_says_what_was_run_and_what_it_cannot_do(finished):
    text = card(finished).text
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["model"]["sha256"][:12] in text and manifest["processes"][0]["packages"]["torch"] in text
    assert "6 of 4 harmful and 4 retained sequences" in text and "chats harmful.jsonl: 6 chats" in text
    assert f"rerouting reproduce {finished}" in text
    flat = " ".join(text.split())
    for limit in ("Whoever has the weights can undo it", "fine-tuning", "Contextual behaviours", "RepE"):
        assert limit in flat
    assert "2406.04313" in text and "Not attacked yet" in text and "Not measured yet" in text
    assert "{{" not in text and "{%" not in text and "None" not in text


@pytest.mark.parametrize("folder", ["adapter", "."])
def test_the_snippet_loads_the_adapter_and_answers(finished, folder, capsys):
    code = re.findall(r"```python\n(.*?)```", card(finished, folder).text, flags=re.DOTALL)
    assert len(code) == 1
    found = {}
    exec(code[0], found)
    assert capsys.readouterr().out.strip()
    assert type(found["model"]).__name__.startswith("PeftModel")
    assert found["adapter"] == str(finished / "adapter")


def test_card_again_shows_attacks_and_costs_of_later(run, capsys):
    pair = {model: {"asr": rate(hits, 8), "verified": None} for model, hits in (("base", 8), ("rerouted", 2))}
    verified = {model: {"verified": rate(1, 8) | {"read": 8}} for model in pair}
    attacks = {
        "direct": {"all": pair},
        "pair": {"all": {model: one | verified[model] for model, one in pair.items()}},
        "static": {"skipped": "no file of cases"},
    }
    matrix = {"budget": "quick", "judge": "harmbench", "attacks": attacks}
    (run / "attacks-quick").mkdir()
    (run / "attacks-quick" / "summary.json").write_text(json.dumps(matrix))
    (run / "kept").mkdir()
    (run / "kept" / "summary.json").write_text(
        json.dumps({"measures": {"intrinsic": {"findings": [FINDING], "notes": ["two texts left out"]}}})
    )
    assert main(["card", str(run)]) == 0
    assert "adapter/README.md" in capsys.readouterr().out
    for text in (card(run).text, card(run, ".").text):
        assert "budget quick, judged by `harmbench`" in text
        assert "| direct | 8 | 100.0 [67.6, 100.0] | 25.0 [7.1, 59.1] |  |" in text
        assert "12.5 [2.2, 47.1] → 12.5 [2.2, 47.1]" in text and "not run: no file of cases" in text
        assert "0.625 [0.500, 0.750]" in text and "two texts left out" in text
        assert "Not attacked yet" not in text and "Not measured yet" not in text


def test_a_card_says_how_surely_the_turn_ends_behind_the_place(run):
    manifest = json.loads((run / "manifest.json").read_text())
    assert "half the way to `stop`" not in card(run).content
    name = "probability that the base's turn ends half the way to `stop`"
    for chance, said in ((0.964, "0.96 (layer 2)"), (0.2, "0.20 (layer 2): tripped answers may babble on")):
        manifest["places"] = {"stop": {"examples": 4, "tokens": 9, "norm": {"2": 1.0}, "ends": {"2": chance}}}
        (run / "manifest.json").write_text(json.dumps(manifest))
        assert main(["card", str(run)]) == 0
        assert f"| {name} | {said} |" in card(run).content


def test_damaged_parts_are_named_and_the_rest_is_shown(run):
    (run / "summary.json").write_text("{")
    (run / "kept").mkdir()
    (run / "kept" / "summary.json").write_text("[1]")
    (run / "manifest.json").unlink()
    assert main(["card", str(run)]) == 0
    text = card(run).text
    assert "run/summary.json" in text and "Cannot be read" in text and "not compared" in text
    assert "not recorded" in text


def test_a_run_without_an_adapter_and_no_run_are_explained(run, tmp_path, capsys):
    shutil.rmtree(run / "adapter")
    assert main(["card", str(run)]) == 2
    assert "no adapter yet" in capsys.readouterr().err
    assert main(["card", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_names_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "model").mkdir()
    names = {
        "smollm2-135m": EMBEDDED["smollm2-135m"].hub,
        "Qwen/Qwen3-0.6B": "Qwen/Qwen3-0.6B",
        "own/model": "",
    }
    for name, expected in names.items():
        config = RunConfig()
        config.model.name = name
        assert hub_name(config) == expected
    (tmp_path / "rows.jsonl").write_text("{}")
    sources = [
        {"name": "ultrachat"},
        {"name": "chats", "options": {"path": "owner/chats"}},
        {"name": "chats", "options": {"path": "own/rows.jsonl"}},
        {"name": "chats", "options": {"path": "own/model"}},
        {"name": "bundled", "options": {"kind": "benign"}},
        {"name": "chats", "options": {"path": "owner/unused"}, "weight": 0},
    ]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"data": {"retain": sources}}))
    config = load_config(RunConfig, tmp_path / "recipe.yaml")
    assert datasets_of(config) == ["HuggingFaceH4/ultrachat_200k", "owner/chats"]


def test_the_license_stands_where_the_base_states_it(tmp_path, monkeypatch):
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))
    recipe = write_recipe(tmp_path, steps=1)
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n# It\n")
    command = ["train", "--config", str(recipe), "--out", str(tmp_path / "run"), "--evaluation.sets", "[]"]
    assert main(command) == 0
    assert card(tmp_path / "run").data.license == "mit"
    assert "not compared" in card(tmp_path / "run").text
