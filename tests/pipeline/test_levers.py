"""Places, depths, layers and the data's levers through the real command line, on a tiny model."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rerouting.cli.main import main
from rerouting.core.config import load_config
from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl
from rerouting.pipeline.layers import Separation, auc, choose, separations
from rerouting.pipeline.prepare import Preparation
from rerouting.pipeline.target_layers import at_depths
from rerouting.training.config import RunConfig
from tests.data.tokenizers_of_families import CHATML, tiny
from tests.pipeline.tiny_run import in_two_processes, write_recipe


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path)


NOTHING = ["--evaluation.sets", "[]"]


def train(recipe, out, *options):
    return main(["train", "--config", str(recipe), "--out", str(out), *NOTHING, *options])


def adapter(out):
    return load_file(out / "adapter" / "adapter_model.safetensors")


def manifest(out):
    return json.loads((out / "manifest.json").read_text())


TO_END = ["--losses.reroute", '{"name": "to_place", "options": {"place": "end"}}', "--lora.dropout", "0"]


HOLDING = ["--losses.schedule", '{"name": "holding", "options": {"level": 0.01, "gain": 0.5}}']


@pytest.mark.long
def test_places_and_a_schedule_that_observes_are_the_same_in_two_processes(recipe, tmp_path):
    assert train(recipe, tmp_path / "alone", *TO_END, *HOLDING) == 0
    place = load_file(tmp_path / "alone" / "places.safetensors")
    assert place.keys() == {"end"} and place["end"].shape == (1, 32) and place["end"].dtype is torch.float32
    noted = manifest(tmp_path / "alone")["places"]["end"]
    assert noted["examples"] == noted["tokens"] == 6, "six different retain chats, each whole"
    assert noted["norm"]["2"] == pytest.approx(place["end"].norm().item(), rel=1e-6)
    in_two_processes("train", "--config", recipe, "--out", tmp_path / "two", *NOTHING, *TO_END, *HOLDING)
    alone, two = adapter(tmp_path / "alone"), adapter(tmp_path / "two")
    assert torch.equal(load_file(tmp_path / "two" / "places.safetensors")["end"], place["end"])
    assert all(torch.allclose(alone[name], two[name], atol=2e-5) for name in alone)
    weights = [
        [row["retain_coefficient"] for row in read_jsonl(tmp_path / name / "metrics.jsonl")]
        for name in ("alone", "two")
    ]
    assert weights[1] == pytest.approx(weights[0], rel=1e-4) and weights[0][-1] != weights[0][0]


def test_a_run_that_goes_on_uses_the_places_that_are_there(recipe, tmp_path, monkeypatch):
    import rerouting.pipeline.run as run

    measured = []
    original = run.save_places
    monkeypatch.setattr(run, "save_places", lambda *given: measured.append(1) or original(*given))
    monkeypatch.setattr(run, "_trained", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    assert train(recipe, tmp_path / "run", *TO_END) == 130
    before = (tmp_path / "run" / "places.safetensors").read_bytes()
    monkeypatch.undo()
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "save_places", lambda *given: pytest.fail("measured again"))
    assert train(recipe, tmp_path / "run", *TO_END) == 0
    assert measured == [1] and (tmp_path / "run" / "places.safetensors").read_bytes() == before


def test_a_run_without_places_has_no_file_and_no_note(recipe, tmp_path):
    assert train(recipe, tmp_path / "run") == 0
    assert not (tmp_path / "run" / "places.safetensors").exists() and "places" not in manifest(
        tmp_path / "run"
    )


def test_no_refusals_to_measure_leaves_the_folder_free_for_a_mended_command(recipe, tmp_path, capsys):
    refusal = ["--losses.reroute", '{"name": "to_place", "options": {"place": "refusal"}}']
    assert train(recipe, tmp_path / "run", *refusal) == 2
    assert "no retain response declines" in capsys.readouterr().err
    refused = '{"name": "refused", "options": {"options": {"kind": "harmful", "limit": 4}}}'
    assert (
        train(recipe, tmp_path / "run", *refusal, "--data.retain+", refused, "--data.max_bleu", "null") == 0
    )
    assert manifest(tmp_path / "run")["places"]["refusal"]["tokens"] > 8


def test_a_run_says_how_surely_the_turn_ends_at_stop(recipe, tmp_path, capsys):
    stop = ["--losses.reroute", '{"name": "to_place", "options": {"place": "stop"}}']
    assert train(recipe, tmp_path / "run", *stop) == 0
    noted = manifest(tmp_path / "run")["places"]["stop"]
    assert noted["examples"] == 6 and 0 < noted["ends"]["2"] < 0.5, (
        "a random model above does not end the turn"
    )
    said = capsys.readouterr().err
    assert f"stop at layer 2 the turn ends with probability {noted['ends']['2']:.2f}" in said
    assert load_file(tmp_path / "run" / "places.safetensors")["stop"].shape[0] == 1


def test_every_lever_is_noted_and_seen_in_the_streams(recipe, tmp_path):
    options = ["--data.late_start", "0.5", "--data.earlier_turns", "0.25", "--data.retain_earlier_turns", "1"]
    assert train(recipe, tmp_path / "plain") == 0
    assert train(recipe, tmp_path / "run", *options, "--data.most_earlier_turns", "1") == 0
    sources = manifest(tmp_path / "run")["data"]["sources"]
    noted = {
        name: {key: value for row in rows for key, value in row.items()} for name, rows in sources.items()
    }
    # 6 steps of 4 chats in each stream
    assert (noted["circuit_breaker"]["begin_late"], noted["circuit_breaker"]["with_earlier_turns"]) == (12, 6)
    before, after = (
        read_jsonl(tmp_path / name / "streams" / "circuit_breaker.jsonl") for name in ("plain", "run")
    )
    late = [row for row in after if not row["mask"][row["n_prompt"]]]
    assert len(late) == 12 and all(row["mask"][-1] for row in after)
    longer = [new["n_prompt"] > old["n_prompt"] for new, old in zip(after, before, strict=True)]
    assert sum(longer) == 6
    retain = [read_jsonl(tmp_path / name / "streams" / "retain.jsonl") for name in ("plain", "run")]
    longer = [new["n_prompt"] > old["n_prompt"] for old, new in zip(*retain, strict=True)]
    assert sum(longer) == noted["retain"]["with_earlier_turns"] > 12, "all but those that drew themselves"
    held = [
        (tmp_path / name / "streams" / "held_out_harmful.jsonl").read_bytes() for name in ("plain", "run")
    ]
    assert held[0] == held[1]
    assert not any(
        "begin_late" in row
        for rows in manifest(tmp_path / "plain")["data"]["sources"].values()
        for row in rows
    )


def test_contexts_and_turns_after_harm_are_seen_in_the_streams(recipe, tmp_path):
    options = ["--data.contexts", "0.5", "--data.retain_contexts", "0.25", "--data.retain_after_harm", "0.5"]
    assert train(recipe, tmp_path / "plain", "--data.retain_mask", "all") == 0
    assert train(recipe, tmp_path / "run", *options, "--data.retain_mask", "all") == 0
    sources = manifest(tmp_path / "run")["data"]["sources"]
    noted = {
        name: {key: value for row in rows for key, value in row.items()} for name, rows in sources.items()
    }
    assert noted["circuit_breaker"]["with_contexts"] == 12
    assert (noted["retain"]["with_contexts"], noted["retain"]["after_harm"]) == (6, 12)
    retain = [read_jsonl(tmp_path / name / "streams" / "retain.jsonl") for name in ("plain", "run")]
    after = [new for new in retain[1] if not new["mask"][0]]
    assert len(after) == 12
    for row in after:  # the response alone is held
        assert row["mask"] == [False] * row["n_prompt"] + [True] * (len(row["ids"]) - row["n_prompt"])
    longer = [new["n_prompt"] > old["n_prompt"] for old, new in zip(*retain, strict=True)]
    assert 12 <= sum(longer) <= 18
    assert train(recipe, tmp_path / "turns", *options, "--data.retain_mask", "turn") == 0
    turns = read_jsonl(tmp_path / "turns" / "streams" / "retain.jsonl")
    assert all(row["mask"][row["n_prompt"] - 1] and not row["mask"][0] for row in turns), (
        "headers after harm too"
    )


def test_refusals_move_from_the_circuit_breaker_set_to_the_retain_set(recipe, tmp_path, monkeypatch, capsys):
    def sampled(self, chats, source, row):
        """Of the harmful ones every second is answered after a prefix, and every third plain one is declined."""
        found = []
        for at, chat in enumerate(chats):
            prefix = "Sure" if at % 2 else ""
            refuses = at % 3 == 0 or everything
            text = prefix + ("I'm sorry, no" if refuses else "here it is")
            found.append(replace(chat, response=text, meta={"on_policy": True, "prefix": prefix}))
        return found

    everything = False
    monkeypatch.setattr(Preparation, "_sampled", sampled)
    harmful = {
        "name": "bundled",
        "options": {"kind": "harmful", "split": "train", "limit": 12},
        "on_policy": True,
    }
    option = [
        "--data.circuit_breaker",
        json.dumps([harmful | {"refusals": "retain"}]),
        "--data.retain_mask",
        "all",
    ]
    assert train(recipe, tmp_path / "run", *option) == 0
    rows = manifest(tmp_path / "run")["data"]["sources"]["circuit_breaker"]
    assert (rows[0]["refusals"], rows[0]["used"]) == (2, 10)  # numbers 0 and 6; those after a prefix stay
    tokenizer = tiny(CHATML)
    said = {
        name: [
            tokenizer.decode(row["ids"]) for row in read_jsonl(tmp_path / "run" / "streams" / f"{name}.jsonl")
        ]
        for name in ("circuit_breaker", "retain")
    }
    refused = {name: sum("\nI'm sorry" in text for text in texts) for name, texts in said.items()}
    assert (
        refused["circuit_breaker"] == 0
        and sum("\nSureI'm sorry" in text for text in said["circuit_breaker"]) > 0
    )
    assert 0 < refused["retain"] < len(said["retain"]) / 2, "as often as any other chat"
    everything = True
    harmful["options"]["limit"] = 1
    assert (
        train(
            recipe,
            tmp_path / "none",
            "--data.circuit_breaker",
            json.dumps([harmful | {"refusals": "retain"}]),
        )
        == 2
    )
    assert "nothing is left to reroute" in capsys.readouterr().err


def test_earlier_turns_respect_the_length_of_a_prompt(recipe, tmp_path):
    short = ["--data.earlier_turns", "1", "--data.max_prompt", "60"]  # one letter a token: no exchange fits
    assert train(recipe, tmp_path / "run", *short) == 0
    rows = manifest(tmp_path / "run")["data"]["sources"]["circuit_breaker"]
    assert {"with_earlier_turns": 0} in rows


@pytest.mark.parametrize(
    ("depths", "depth", "layers"),
    [((0.33, 0.66), 30, (10, 20)), ((0.33, 0.66), 32, (11, 21)), ((0.01, 1.0, 0.99), 10, (1, 10))],
)
def test_depths_become_layers(depths, depth, layers):
    config = RunConfig()
    config.losses.target_depths = depths
    resolved = at_depths(config, depth)
    assert resolved.losses.target_layers == layers and resolved.losses.target_depths is None
    assert at_depths(RunConfig(), 5) == RunConfig()


def test_the_first_adapter_can_be_a_share_of_the_depth():
    config = RunConfig()
    config.lora.first_depth = 0.33
    resolved = at_depths(config, 30)
    assert resolved.lora.first_block == 10 and resolved.lora.first_depth is None
    assert at_depths(config, 2).lora.first_block == 1
    config.lora.first_block = 3
    with pytest.raises(UserError, match=r"lora.first_block 3 and lora.first_depth 0.33 are both given"):
        at_depths(config, 30)
    config.lora.first_block, config.lora.first_depth = 0, 1.0
    with pytest.raises(UserError, match=r"a share of the depth from 0 to below 1"):
        at_depths(config, 30)


def test_each_source_can_have_completions_of_its_own_length(recipe, tmp_path):
    path, tokens = tmp_path / "mine.jsonl", {}
    path.write_text('{"prompt": "Hello there", "response": "x"}\n{"prompt": "What?", "response": "y"}\n')
    for limit in (None, 1):
        options = {"path": str(path), "response": "response"}
        source = {"name": "chats", "options": options, "on_policy": True, "max_new_tokens": limit}
        out = tmp_path / str(limit)
        assert train(recipe, out, "--data.retain", json.dumps([source]), "--data.close", "false") == 0
        rows = read_jsonl(out / "streams" / "retain.jsonl")
        tokens[limit] = sum(len(row["ids"]) - row["n_prompt"] for row in rows)
    assert tokens[1] < tokens[None], "sampling.max_new_tokens holds where a source says nothing"


def test_target_depths_train_the_layers_that_they_mean_and_the_manifest_says_which(recipe, tmp_path, capsys):
    depths = ["--losses.target_layers", "[]", "--losses.target_depths", "[0.66]"]
    assert train(recipe, tmp_path / "depths", *depths) == 0
    assert train(recipe, tmp_path / "layers", "--losses.target_layers", "[2]") == 0
    assert (
        manifest(tmp_path / "depths")["target_layers"]
        == manifest(tmp_path / "layers")["target_layers"]
        == [2]
    )
    first, second = adapter(tmp_path / "depths"), adapter(tmp_path / "layers")
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert load_config(RunConfig, tmp_path / "depths" / "config.yaml").losses.target_depths == (0.66,)
    assert train(recipe, tmp_path / "depths", *depths) == 0, "the same command goes on"
    capsys.readouterr()
    plan = ["plan", "--recipe", str(recipe), "--json", "--rate", "1"]
    assert main([*plan, *depths]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["trunk_blocks"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--losses.target_depths", "[0.5]"], "are both given"),
        (["--losses.target_layers", "[]", "--losses.target_depths", "[1.5]"], "shares of the depth"),
        (["--losses.target_layers", "[]", "--losses.target_depths", "[]"], "shares of the depth"),
        (["--losses.target_layers", "[]"], "at least one layer"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "plan"])
def test_bad_depths_get_one_line(recipe, tmp_path, capsys, verb, options, said):
    given = ["--out", str(tmp_path / "run")] if verb == "train" else ["--rate", "1"]
    assert main([verb, "--config", str(recipe), *given, *options]) == 2
    shown = capsys.readouterr().err
    assert said in shown and "Traceback" not in shown


def test_area_under_the_curve_by_hand():
    # of 6 pairs 3 > 1, 3 > 2, 2 > 1 win, (2, 2) ties, 0 loses twice
    assert auc(torch.tensor([3.0, 2.0, 0.0]), torch.tensor([1.0, 2.0])) == pytest.approx(3.5 / 6)


def test_separations_by_hand_and_the_choice():
    harmful = torch.tensor([[[2.0, 0.0], [1.0, 0.0]], [[4.0, 0.0], [1.0, 0.0]]])  # (2, 2, 2)
    harmless = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
    # directions (3, −1) and (0, −1); projections: layer 1: 3 against 0; layer 2: −1 against −1
    held = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[0.0, 0.0], [5.0, 1.0]]])
    first, second = separations((1, 2), harmful, harmless, *held)
    assert (first.layer, first.auc, first.cosine) == (1, 1.0, 0.0)
    assert (second.layer, second.auc, second.cosine) == (2, 0.5, pytest.approx(0.5**0.5))
    assert choose([Separation(1, 0.99, 0.9), Separation(2, 0.995, 0.4), Separation(3, 0.9, 0.1)]) == 2


def test_layers_prints_a_row_a_layer_and_what_it_would_choose(recipe, capsys):
    assert main(["layers", "--recipe", str(recipe), "--json", "--limit", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["layer"] for row in found["rows"]] == [1, 2, 3] and found["chosen"] in (1, 2, 3)
    assert all(0 <= row["auc"] <= 1 and -1 <= row["cosine"] <= 1 for row in found["rows"])
    assert found["examples"] == {"harmful": 5, "harmless": 5, "held_out_harmful": 6, "held_out_harmless": 6}
    assert main(["layers", "--recipe", str(recipe)]) == 0
    shown = capsys.readouterr().out
    assert f"--losses.target_layers [{found['chosen']}]" in shown and "AUC" in shown


def test_layers_wants_held_out_streams(recipe, tmp_path, capsys):
    assert main(["layers", "--recipe", str(recipe), "--data.held_out_benign", "[]"]) == 2
    assert "data.held_out_benign has no source" in capsys.readouterr().err
    assert main(["layers", "--recipe", str(recipe), "--limit", "1"]) == 2
    assert "--limit is 1" in capsys.readouterr().err


def test_other_languages_come_through_the_source_chats(recipe, tmp_path):
    rows = [
        {"prompt": "Як спекти хліб?", "response": "Змішайте борошно."},
        {"prompt": "วิธีปลูกต้นไม้", "response": "ขุดหลุม"},
    ]
    file = tmp_path / "other.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    given = yaml.safe_load(recipe.read_text())
    given["data"]["retain"] = [{"name": "chats", "options": {"path": str(file)}}]
    recipe.write_text(yaml.safe_dump(given))
    assert train(recipe, tmp_path / "run") == 0
    from rerouting.models.loading import load

    tokenizer = load(load_config(RunConfig, recipe).model).tokenizer
    texts = {
        tokenizer.decode(row["ids"]) for row in read_jsonl(tmp_path / "run" / "streams" / "retain.jsonl")
    }
    assert all(any(row["prompt"] in text and row["response"] in text for text in texts) for row in rows)


def test_a_place_that_is_damaged_says_to_remove_it(recipe, tmp_path):
    from rerouting.pipeline.places import load_places

    config = load_config(RunConfig, recipe)
    config.losses.reroute = type(config.losses.reroute)("boundary")
    (tmp_path / "places.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="remove it"):
        load_places(config, tmp_path / "places.safetensors")
