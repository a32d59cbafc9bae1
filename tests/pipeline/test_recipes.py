"""Every recipe is loaded, and trains two steps on a tiny random model of its architecture."""

import csv
import json
from pathlib import Path

import pytest
import torch
import transformers

from rerouting.core.config import load_config
from rerouting.core.files import read_jsonl
from rerouting.core.recipes import recipe_names, recipe_path
from rerouting.pipeline.run import execute
from rerouting.pipeline.target_layers import at_depths
from rerouting.training.config import RunConfig
from tests.data.tokenizers_of_families import CHATML, LLAMA3, MISTRAL, tiny

FAMILIES = {
    "llama": (transformers.LlamaConfig, LLAMA3),
    "mistral": (transformers.MistralConfig, MISTRAL),
    "four": (transformers.LlamaConfig, CHATML),
    "quickstart": (transformers.LlamaConfig, CHATML),
    "default": (transformers.LlamaConfig, CHATML),
    "smollm2": (transformers.LlamaConfig, CHATML),
}
OURS = ("default", "four-fifths", "quickstart", "smollm2-agent")
MULTIMODAL = ("llava-next-mistral-7b", "small-vlm")  # test_small_vlm.py trains these
LAYERS = 22  # the recipes' layers 10 and 20 and blocks 0 to 20, and one block above


def save_model(folder: Path, recipe: str) -> None:
    kind, template = FAMILIES[recipe.split("-")[0]]
    tokenizer = tiny(template)
    torch.manual_seed(0)
    config = kind(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_published_files(folder: Path) -> None:
    """The authors' file, XSTest's completions and UltraChat in their published formats."""
    items = [
        {"prompt": f"Do {n}", "output": f"Sure, {n}", "llama3_output": f"I can't do {n}"} for n in range(6)
    ]
    (folder / "circuit_breakers_train.json").write_text(json.dumps(items))
    with (folder / "xstest_v2_completions_gpt4_gpteval.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "type", "prompt", "completion", "final_label"])
        for n in range(4):
            writer.writerow(
                [f"v2-{n}", "homonyms", f"Kill process {n}?", f"Use kill {n}.", "1_full_compliance"]
            )
        writer.writerow(["v2-9", "contrast", "Kill a man?", "No.", "2_full_refusal"])
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [{"prompt": "Hi", "prompt_id": str(n), "messages": turns * (1 + n % 2)} for n in range(5)]
    called = {
        "system": 'SYSTEM: Use these functions.\n{"name": "f", "description": "d", "parameters": {}}',
        "chat": 'USER: Go\n\n\nASSISTANT: <functioncall> {"name": "f", "arguments": \'{}\'} <|endoftext|>\n\n\n',
    }
    (folder / "glaive.jsonl").write_text(json.dumps(called) + "\n")
    (folder / "ultrachat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def paper_facts(config: RunConfig, name: str) -> None:
    """What the paper and the authors' code say, for every recipe but our own."""
    assert (config.training.steps, config.training.batch_size) == (150, 16)
    assert config.training.learning_rate == 1e-4
    assert config.training.decay_from is None
    assert (config.training.weight_decay, config.training.warmup_steps) == (0.0, 0)
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout, config.lora.last_block) == (
        16,
        16.0,
        0.05,
        20,
    )
    assert config.lora.init_b_std == 0.0
    assert config.losses.target_layers == (10, 20)
    assert config.losses.schedule.name == "linear"
    assert config.losses.schedule.options["alpha"] == (10.0 if "llama" in name else 5.0)
    assert (config.losses.retain.name, config.losses.retain.options) == ("l2", {"over": "padded"})
    assert config.losses.final_norm and config.losses.retain_mean == "tokens"
    assert not config.data.contexts and not config.data.retain_contexts
    assert not config.losses.skip_first_token
    assert (config.data.max_prompt, config.data.max_response, config.data.max_retain) == (512, 512, 1024)
    assert (config.data.mask, config.data.retain_mask, config.data.close) == ("all", "all", False)
    dropped = 0.0 if "mistral" in name or "no-augment" in name or "agent" in name else 0.5
    assert config.data.drop_request == dropped
    weights = [source.weight for source in config.data.retain]
    if name.endswith("agent"):
        assert config.data.retain[0].name == "glaive" and config.data.max_bleu == 0.1
        return
    assert weights == ([10001, 11500] if "mistral" in name or "no-refusal" in name else [10001, 11500, 4000])


def test_these_are_the_recipes():
    assert recipe_names() == [
        "default", "four-fifths", "llama-3-8b", "llama-3-8b-agent", "llama-3-8b-no-augment",
        "llama-3-8b-no-refusal", "llama-3-8b-randc", "llama-3-8b-randp", "llama-3-8b-rmu", "llava-next-mistral-7b",
        "mistral-7b", "mistral-7b-randp", "mistral-7b-rmu", "quickstart", "small-vlm", "smollm2-agent",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in recipe_names() if name not in MULTIMODAL])
def test_recipe_trains_two_steps_on_its_architecture(name, tmp_path, monkeypatch):
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    config = load_config(RunConfig, recipe_path(name))
    assert config.description
    if name not in OURS:
        paper_facts(config, name)
    save_model(tmp_path / "model", name)
    save_published_files(tmp_path)
    config.model.name = str(tmp_path / "model")
    config.model.dtype = "float32"
    config.training.steps = 2
    config.training.batch_size = 3
    config.training.retain_batch_size = None
    config.sampling.max_new_tokens = 3
    config.evaluation.sets = []
    for source in config.data.retain + config.data.circuit_breaker:
        if source.name == "ultrachat":
            source.options["path"] = "ultrachat.jsonl"
        if source.name == "glaive":
            source.options["path"] = "glaive.jsonl"
        if source.name in ("bundled", "tools"):
            source.options["limit"] = 6
            source.max_new_tokens = None
    if name in OURS:
        config.losses.reroute.options["place"] = "retain"  # random weights never end a turn
        config.data.evaluation = []
    if name.endswith("agent"):  # a letter a token makes schemas long
        config.data.max_prompt, config.data.max_retain = 96, 1400
        config.data.held_out_harmful, config.data.held_out_benign = [], []
    if config.lora.init_b_std == 0:
        # the paper's start is a stationary point up to rounding: give the first two steps something to go on
        config.lora.init_b_std = 1e-3
    execute(config, tmp_path / "run")
    rows = list(read_jsonl(tmp_path / "run" / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2]
    told = json.loads((tmp_path / "run" / "manifest.json").read_text())["data"]["sources"]
    for stream in ("circuit_breaker", "retain"):
        behind = sum(one.get("with_contexts", 0) for one in told[stream])
        assert bool(behind) is bool(config.data.contexts)
    layers = at_depths(config, LAYERS).losses.target_layers
    assert rows[0]["cosine"].keys() == {str(layer) for layer in layers}
    assert (tmp_path / "run" / "model" / "config.json").is_file()
