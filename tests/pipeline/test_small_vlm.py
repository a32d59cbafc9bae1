"""From a language model to a small vision-language model, its circuit breakers, and attacks: the verbs, end to end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from rich.console import Console

from rerouting.cli._chat_terminal import Talk
from rerouting.core.config import load_config
from rerouting.core.files import read_jsonl
from rerouting.core.finder import Component, build
from rerouting.core.recipes import recipe_path
from rerouting.core.records import Chat, Message
from rerouting.data.config import SourceConfig
from rerouting.data.formatting import render_prompt
from rerouting.data.loading import chats_of
from rerouting.evaluation.attack_config import AttackConfig
from rerouting.evaluation.kept_config import KeptConfig
from rerouting.models import hardware
from rerouting.models.config import ModelConfig
from rerouting.models.generation import generate
from rerouting.models.loading import load
from rerouting.models.small_vlm import small_vlm
from rerouting.pipeline.attack import attack_run
from rerouting.pipeline.chat_style import Style
from rerouting.pipeline.conversation import Conversation, open_pair
from rerouting.pipeline.kept import kept_run
from rerouting.pipeline.pair import models_of
from rerouting.pipeline.probing import Reader, answered
from rerouting.pipeline.reading_both import read_both
from rerouting.pipeline.run import execute
from rerouting.pipeline.small_vlm import make
from rerouting.pipeline.unseen import Unseen
from rerouting.training.config import RunConfig
from rerouting.training.eye_config import EyeConfig
from tests.data.tokenizers_of_families import CHATML, tiny
from tests.models.tiny_vision import save

VISION = {"embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 1, 2]}
EYE = EyeConfig(
    device="cpu", pictures=24, texts=6, answer_tokens=3, see_steps=30, see_batch=12, tell_steps=4, tell_batch=4,
    test_pictures=6, rank=0,
)  # fmt: skip


def language(folder):
    tokenizer = tiny(CHATML)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False
    )
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        initializer_range=0.2, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", autouse=True)
def in_float32():
    """Models are made in float32 also on a processor with bfloat16, where `auto` would round their weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "cpu_has_bf16", lambda: False)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("vlm")
    name = language(home / "language")
    return home, name, make(EyeConfig(**{**vars(EYE), "language": name}), home / "vlm", VISION)


@pytest.fixture(scope="module")
def run(made):
    home, _, _ = made
    config = load_config(RunConfig, recipe_path("small-vlm"))
    config.model = ModelConfig(name=str(home / "vlm" / "model"), device="cpu", dtype="float32")
    data, training = config.data, config.training
    for source in (*data.circuit_breaker, *data.retain, *data.held_out_harmful, *data.held_out_benign):
        source.options["limit"], source.max_new_tokens, source.refusals = 4, 3, "keep"
    data.evaluation, config.evaluation.sets = [], []
    config.losses.reroute.options["place"] = "retain"  # random weights never end a turn
    training.steps, training.batch_size, training.retain_batch_size, training.max_benign_rise = 2, 2, 2, 99.0
    training.max_final_benign_rise = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REROUTING_CACHE", str(home / "cache"))
        execute(config, home / "run")
    return home / "run"


def test_text_is_answered_as_before(made):
    home, name, _ = made
    before, after = (
        load(ModelConfig(name=one, device="cpu", dtype="float32"))
        for one in (name, str(home / "vlm" / "model"))
    )
    ids = torch.tensor([before.tokenizer("Hello there")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(before.model(input_ids=ids).logits, after.model(input_ids=ids).logits)
    assert after.tokenizer.image_reader is after.model.image_reader


def test_the_eye_learns_and_is_asked(made):
    home, _, summary = made
    rows = list(read_jsonl(home / "vlm" / "training.jsonl"))
    seen = [row for row in rows if row["step"] in (1, 25)]
    assert seen[1]["loss"] < seen[0]["loss"]
    answers = list(read_jsonl(home / "vlm" / "answers.jsonl"))
    assert len(answers) == summary["accuracy"]["all"]["n"] == 6
    assert {"picture", "fact", "question", "wanted", "answer", "right"} <= answers[0].keys()


def test_only_the_eye_was_trained(made):
    home, name, _ = made
    untrained, _ = small_vlm(load(ModelConfig(name=name, device="cpu", dtype="float32")), 0, VISION)
    trained = load(ModelConfig(name=str(home / "vlm" / "model"), device="cpu", dtype="float32")).model
    changed = {
        key.split(".")[1]
        for (key, old), new in zip(untrained.named_parameters(), trained.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    assert changed == {"vision_tower", "multi_modal_projector"}


def test_the_language_model_learns_to_read_and_keeps_no_adapter(made, tmp_path):
    _, name, _ = made
    make(EyeConfig(**{**vars(EYE), "language": name, "rank": 2, "see_steps": 2}), tmp_path / "vlm", VISION)
    untrained, _ = small_vlm(load(ModelConfig(name=name, device="cpu", dtype="float32")), 0, VISION)
    trained = load(ModelConfig(name=str(tmp_path / "vlm" / "model"), device="cpu", dtype="float32")).model
    before, after = dict(untrained.named_parameters()), dict(trained.named_parameters())
    assert before.keys() == after.keys()
    moved = {key for key, item in before.items() if not torch.equal(item, after[key])}
    assert any("language_model.layers.2.mlp" in key for key in moved)
    assert not any("norm" in key or "embed_tokens" in key for key in moved if "language_model" in key)


def test_its_recipe_takes_turns_and_merges(run):
    steps = list(read_jsonl(run / "metrics.jsonl"))
    assert [row["step"] for row in steps] == [1, 2]
    retained = list(read_jsonl(run / "streams" / "retain.jsonl"))
    assert {bool(row.get("images")) for row in retained} == {True, False}
    assert (run / "model" / "processor_config.json").is_file()
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["merge"]["max_logit_difference"] < 1e-4


def test_attacks_and_measures_by_picture(run, tmp_path):
    config = AttackConfig(
        model=str(run),
        attacks=["direct", "image_pgd"],
        attack_options={"image_pgd": {"steps": 2, "generations": 1}},
        sources=[SourceConfig("drawn", {"kind": "harmful", "split": "test", "limit": 2})],
        cases={"direct": 2, "image_pgd": 2},
        judges=["refusal_words"],
        max_new_tokens=3,
    )
    attack_run(config, tmp_path / "attacks")
    rows = list(read_jsonl(tmp_path / "attacks" / "results.jsonl"))
    assert len(rows) == 8 and not any(row["failure"] for row in rows)
    sent = {row["attack"]: row["messages"][-1]["images"][0] for row in rows}
    assert sent["direct"].startswith("drawn:test/") and sent["image_pgd"].endswith(".png")
    again = {row["key"]: row["answer"] for row in rows}
    attack_run(config, tmp_path / "attacks")  # finished cases are not attacked again
    assert {row["key"]: row["answer"] for row in read_jsonl(tmp_path / "attacks" / "results.jsonl")} == again
    (tmp_path / "attacks").rename(tmp_path / "elsewhere")  # a matrix may be moved, and judged again
    more = replace(config, judges=["refusal_words", "broken"])
    attack_run(more, tmp_path / "elsewhere")
    moved = list(read_jsonl(tmp_path / "elsewhere" / "results.jsonl"))
    assert all(row["verdicts"]["broken"]["yes"] is not None for row in moved)
    assert {row["messages"][-1]["images"][0].split("/")[0] for row in moved} == {"drawn:test", "pictures"}


def test_what_is_kept_is_measured_with_the_picture_in_sight(run, tmp_path):
    pictured = [{"name": "drawn", "options": {"kind": "questions", "split": "test", "limit": 4}}]
    kept = KeptConfig(
        model=str(run),
        measures=["picture_questions", "intrinsic", "over_refusal"],
        measure_options={
            "picture_questions": {"limit": 4},
            "intrinsic": {"sources": pictured},
            "over_refusal": {"sources": pictured},
        },
        max_new_tokens=3,
    )
    found = kept_run(kept, tmp_path / "kept")["measures"]
    assert "right about pictures" in json.dumps(found["picture_questions"])
    assert {row["name"] for row in found["intrinsic"]["findings"]} >= {"nll", "kl", "drift"}
    rows = list(read_jsonl(tmp_path / "kept" / "rows" / "over_refusal.jsonl"))
    assert len(rows) == 4 and all(row["messages"][-1]["images"] for row in rows)


def test_probes_and_the_analysis_see_the_picture(run):
    base, _ = models_of(run)
    bare, shown = (
        answered(base, Chat("a", (Message("user", "Do", images=images),)), "", "Sure")
        for images in ((), ("drawn:test/1",))
    )
    other = replace(shown, images=("drawn:test/3",))
    states = [read_both(base, base, one).cosine for one in (bare, shown)]
    assert states[0].shape[1] < states[1].shape[1]
    reader = Reader(base, 0)
    one, two = (reader.states([item], [1], None, "")[0][1] for item in (shown, other))
    assert not torch.allclose(one, two)


def test_another_picture_under_the_same_question_is_unseen(run):
    base, _ = models_of(run)
    row = next(row for row in read_jsonl(run / "streams" / "retain.jsonl") if row.get("images"))
    (seen,) = (one for one in chats_of(SourceConfig("drawn", {"kind": "questions", "split": "train", "limit": 9}))
               if list(render_prompt(one, base.tokenizer)) == row["ids"][: row["n_prompt"]]
               and list(one.images) == row["images"])  # fmt: skip
    other = seen.with_images(("drawn:test/1",))
    assert render_prompt(other, base.tokenizer) == render_prompt(seen, base.tokenizer)
    assert Unseen(run, base)([seen, other]) == [other]


def test_a_picture_in_the_conversation(run, capsys):
    conversation = Conversation(open_pair(run), Style(max_new_tokens=2))
    session = Talk(conversation, Console())
    for line in ("/image nothing.png", "/image drawn:test/1", "What is this?", "And now?"):
        assert session.take(line)
    told = capsys.readouterr().out
    assert "there is no picture nothing.png" in told and "drawn:test/1 goes with the next message" in told
    assert [one.images for one in conversation.exchanges] == [("drawn:test/1",), ()]
    base = conversation.pair.models["base"]
    asked = Chat("a", (Message("user", "What is this?", images=("drawn:test/1",)),))
    ids = generate(base.model, base.tokenizer, [render_prompt(asked, base.tokenizer)], max_new_tokens=2)[0]
    assert conversation.exchanges[0].base == base.tokenizer.decode(ids, skip_special_tokens=True)


def test_the_papers_recipe_trains_two_steps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))
    config = load_config(RunConfig, recipe_path("llava-next-mistral-7b"))
    assert config.losses.target_layers == (16,) and config.losses.schedule == Component(
        "linear", {"alpha": 5.0}
    )
    assert (config.lora.first_block, config.lora.last_block, config.training.take_turns) == (14, 16, True)
    save("llava_next", tmp_path / "model", blocks=18)
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"image": image, "prompt": "Do", "response": "Sure"}) + "\n"
            for image in ("drawn:train/1", None)
        )
    )
    config.model = ModelConfig(name=str(tmp_path / "model"), device="cpu", dtype="float32")
    rows = {"path": str(tmp_path / "rows.jsonl")}
    config.data.circuit_breaker = [SourceConfig("pictured", rows)]
    config.data.retain = [SourceConfig("pictured", rows)]
    config.training.steps, config.training.batch_size, config.evaluation.sets = 2, 2, []
    config.lora.init_b_std = 1e-3  # the paper's start is a stationary point up to rounding
    execute(config, tmp_path / "run")
    assert [row["step"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl")] == [1, 2]


def test_a_model_without_pictures_skips_their_attacks():
    from rerouting.core.errors import UserError
    from rerouting.pipeline.attack_setup import drop_image_attacks

    found = {name: build("attacks", Component(name)) for name in ("direct", "image_pgd", "typographic")}
    skipped = {}
    drop_image_attacks(AttackConfig(attacks=["all"]), found, skipped)
    assert set(found) == {"direct"} and skipped["image_pgd"] == "the model takes no pictures"
    found = {"image_pgd": build("attacks", Component("image_pgd"))}
    with pytest.raises(UserError, match="needs pictures"):
        drop_image_attacks(AttackConfig(attacks=["image_pgd"]), found, {})


def test_the_example_for_a_cpu_is_the_recipe_with_less_of_everything():
    recipe = load_config(RunConfig, recipe_path("small-vlm"))
    config = load_config(RunConfig, Path(__file__).parents[2] / "examples/small-vlm-cpu.yaml")
    assert (config.losses, config.lora) == (recipe.losses, recipe.lora)
    for part in ("circuit_breaker", "retain", "held_out_harmful", "held_out_benign", "evaluation"):
        small, whole = getattr(config.data, part), getattr(recipe.data, part)
        assert [(one.name, one.weight, one.prefixed) for one in small] == [
            (one.name, one.weight, one.prefixed) for one in whole
        ]
        for one, other in zip(small, whole, strict=True):
            assert one.options | {"limit": 0} == other.options | {"limit": 0}
    assert config.training.steps < recipe.training.steps
