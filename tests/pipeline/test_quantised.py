"""A base model in 4 bits: trained, merged and evaluated by the same command."""

import json

import pytest

from rerouting.cli.main import main
from rerouting.core.files import read_jsonl
from rerouting.models import loading
from rerouting.models.config import ModelConfig
from tests.pipeline.tiny_run import save_model, write_recipe

OPTIONS = ["--model.quantisation", "nf4", "--model.device", "cpu"]


def test_a_whole_run(tmp_path, monkeypatch):
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))
    recipe, out = write_recipe(tmp_path), tmp_path / "run"
    save_model(tmp_path / "model", width=128)  # bitsandbytes quantises 64 weights at a time
    assert main(["train", "--config", str(recipe), "--out", str(out), *OPTIONS]) == 0
    rows = read_jsonl(out / "metrics.jsonl")
    assert rows[0]["gradient_norm"] > 0 and rows[0]["padding"] == 0.0
    assert (out / "model" / "config.json").exists() and (out / "summary.json").exists()
    assert "quantization_config" not in json.loads((out / "model" / "config.json").read_text())


def test_weights_are_in_four_bits(tmp_path):
    folder = str(save_model(tmp_path / "model"))
    model = loading.load(ModelConfig(name=folder, quantisation="nf4", device="cpu")).model
    assert type(model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"


def test_without_bitsandbytes_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    folder = str(save_model(tmp_path / "model"))
    with pytest.raises(loading.UserError, match=r"pip install 'rerouting\[quantised\]'"):
        loading.load(ModelConfig(name=folder, quantisation="nf4", device="cpu"))
