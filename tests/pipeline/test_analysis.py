"""Representation analysis and the matrix over categories of harm, on tiny runs and by hand."""

import json

import pytest
import torch

from rerouting.cli.main import main
from rerouting.data.formatting import Example
from rerouting.pipeline import generalise as generalising
from rerouting.pipeline.pair import models_of
from rerouting.pipeline.reading_both import read_both, trip_of
from tests.pipeline.tiny_run import own_cache, write_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("analysis")
    with own_cache(folder):
        recipe = write_recipe(folder)
        assert main(["train", "--config", str(recipe), "--out", str(folder / "run")]) == 0
        bare = ["train", "--config", str(recipe), "--out", str(folder / "bare"), "--evaluation.sets", "[]"]
        assert main(bare) == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("cosines", "place"),
    [
        ([0.99, 0.96, 0.99], None),
        ([0.99, 0.9, 0.7, 0.8, 0.99], 1),
        ([0.9, 0.9, 0.99, 0.99, 0.9, 0.2], 4),  # two low tokens in a row are no trip, but at the end
        ([0.1], 0),
        ([], None),
    ],
)
def test_a_trip_is_where_the_cosine_stays_low(cosines, place):
    assert trip_of(cosines) == place


def test_reading_by_hand(run):
    base, rerouted = models_of(run)
    example = Example(tuple(range(40, 60)), 12, (False,) * 12 + (True,) * 8)
    reading = read_both(base, rerouted, example)
    ids = torch.tensor([example.ids])
    own, new = (one.model(ids, output_hidden_states=True) for one in (base, rerouted))
    assert reading.cosine.shape == reading.norm_ratio.shape == (4, 20) and len(reading.kl) == 8
    for layer, at in ((0, 3), (2, 15), (3, 19)):
        a, b = (output.hidden_states[layer][0, at].float() for output in (own, new))
        assert float(reading.cosine[layer, at]) == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-5)
        assert float(reading.norm_ratio[layer, at]) == pytest.approx(float(b.norm() / a.norm()), abs=1e-5)
    before, after = (output.logits[0, 11:19].float().log_softmax(-1) for output in (own, new))
    expected = (before.exp() * (before - after)).sum(-1)
    assert reading.kl == pytest.approx(expected.tolist(), abs=1e-5) and max(reading.kl) > 0
    lowest = torch.minimum(reading.cosine[1, 11:19], reading.cosine[2, 11:19])
    assert reading.written_from([1, 2]) == pytest.approx(lowest.tolist())
    same = read_both(base, base, example)
    assert torch.allclose(same.cosine, torch.ones(4, 20), atol=1e-5) and max(same.kl) < 1e-5


def test_analyse_writes_curves_examples_and_pictures(run, capsys):
    assert main(["analyse", str(run), "--limit", "3", "--examples", "2"]) == 0
    assert "tripped" in capsys.readouterr().out
    found = json.loads((run / "analysis" / "analysis.json").read_text())
    assert found["layers"] == [0, 1, 2, 3] and found["layer"] == 2
    assert found["kinds"].keys() == found["trips"].keys() == {"direct", "prefill", "benign"}
    for phases in found["kinds"].values():
        assert phases.keys() == {"prompt", "response"}
        assert all(len(curve) == 4 for phase in phases.values() for curve in phase.values())
        assert phases["response"]["cosine"][0] == 1.0, "embeddings are the same"
        assert phases["response"]["cosine"][2] < 1.0
    assert len(found["examples"]) == 6
    for example in found["examples"]:
        assert len(example["tokens"]) == len(example["cosine"]) == len(example["kl"]) > example["n_prompt"]
        assert (
            set(example["kl"][: example["n_prompt"]]) == {None}
            and None not in example["kl"][example["n_prompt"] :]
        )
    for name in ("layers.png", "tokens.png"):
        assert (run / "analysis" / name).read_bytes().startswith(b"\x89PNG")


def test_a_run_without_evaluation_is_read_on_its_held_out_streams(run):
    bare = run.parent / "bare"
    assert main(["analyse", str(bare)]) == 0
    found = json.loads((bare / "analysis" / "analysis.json").read_text())
    assert found["kinds"].keys() == {"held-out harmful", "held-out benign"}


def test_no_run_is_said_to_be_none(tmp_path, capsys):
    assert main(["analyse", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err


def row(name, base, rerouted):
    return {"set": name, "base": {"label": base}, "rerouted": {"label": rerouted}}


def test_cells_count_what_breaks_of_what_the_base_says_coherently():
    rows = [row("direct illegal", "answered", "broken"), row("prefill illegal", "refused", "answered")]
    rows += [row("direct illegal", "broken", "broken"), row("benign", "answered", "answered")]
    found = {
        attack: {name: (cell["rate"], cell["n"]) for name, cell in own.items()}
        for attack, own in generalising._cells(rows).items()
    }
    assert found == {
        "direct": {"illegal": (1.0, 1), "benign": (0.0, 1)},
        "prefill": {"illegal": (0.0, 1), "benign": (0.0, 1)},
    }


@pytest.mark.long
def test_generalise_trains_on_one_category_and_tests_on_all(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))
    recipe = write_recipe(tmp_path)
    harmful = {
        "name": "bundled",
        "options": {"kind": "harmful", "split": "train", "limit": 4},
        "on_policy": True,
    }
    given = [
        "--config",
        str(recipe),
        "--data.circuit_breaker",
        json.dumps([harmful]),
        "--training.steps",
        "2",
    ]
    monkeypatch.setattr(generalising, "chats_of", lambda source: generalising_chats(source))
    command = [
        "generalise",
        "--out",
        str(tmp_path / "matrix"),
        "--limit",
        "1",
        *given,
        "--data.max_bleu",
        "null",
    ]
    assert main(command) == 0
    found = json.loads((tmp_path / "matrix" / "matrix.json").read_text())
    assert found["trained"] == ["chemical_biological", "illegal", "all"]
    assert found["tested"] == ["chemical_biological", "illegal", "benign", "borderline"]
    streams = [(tmp_path / "matrix" / name / "config.yaml").read_text() for name in found["trained"]]
    assert "- illegal" in streams[1].split("retain:")[0] and "- illegal" not in streams[2].split("retain:")[0]
    assert capsys.readouterr().out.count("\n| ") >= 3
    assert (tmp_path / "matrix" / "matrix.png").read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--data.circuit_breaker", json.dumps([harmful | {"name": "advbench"}])]) == 2


def generalising_chats(source):
    """Two of the six categories, so that the test stays short."""
    from rerouting.data.loading import chats_of

    return [chat for chat in chats_of(source) if chat.category in ("chemical_biological", "illegal")]
