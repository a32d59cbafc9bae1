"""Probes of a tiny run through the real command line."""

import json
import shutil

import pytest

from rerouting.cli.main import main
from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl, write_jsonl
from rerouting.models.digest import weights_digest
from rerouting.pipeline.pair import base_of, digest
from rerouting.pipeline.probe_table import Case, matching, probe_table
from rerouting.pipeline.probing import base_answers
from rerouting.probes.saved import load_probe
from tests.pipeline.tiny_run import BENIGN_TEST, own_cache, write_chats, write_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probing")
    with own_cache(folder):
        recipe = write_recipe(folder)
        assert main(["train", "--config", str(recipe), "--out", str(folder / "run")]) == 0
    write_chats(folder / "harmless.jsonl", BENIGN_TEST, responses=False)
    return folder / "run"


def options(run, *more):
    source = {"name": "chats", "options": {"path": str(run.parent / "harmless.jsonl"), "response": None}}
    return ["--harmless", json.dumps([source]), "--max_new_tokens", "12", "--skip", "1", *more]


def test_train_and_evaluate(run, capsys):
    assert main(["probe", "train", str(run), *options(run, "--false_positives", "0.2")]) == 0
    summary = json.loads((run / "probes" / "summary.json").read_text())
    assert list(map(int, summary["sweep"])) == [1, 2, 3] and summary["layer"] in (1, 2, 3)
    assert summary["probes"].keys() == {"linear", "mlp", "reading"} and summary["harmless"] == 6
    for kind, row in summary["probes"].items():
        probe = load_probe(run / "probes" / kind)
        assert (probe.layer, probe.skip, probe.threshold) == (summary["layer"], 1, row["threshold"])
        assert row["false_alarms"] <= 0.2 * row["harmless"] and 0 <= row["auc_answers"] <= 1
        assert probe.about["streams"].keys() == {"circuit_breaker", "retain"}
    assert "false alarms" in capsys.readouterr().out
    assert main(["probe", "evaluate", str(run)]) == 0
    table = json.loads((run / "probes" / "table.json").read_text())
    rows = {row["attack"]: row for row in table["rows"]}
    assert rows.keys() == {"direct", "prefill", "benign"} and rows["prefill"]["n"] == 3
    for row in [*table["rows"], *table["matched"]]:
        assert row["linear"] <= row["base"] and row["mlp"] <= row["base"]
        assert row["base_interval"][0] <= row["base"] <= row["base_interval"][1]
    shown = capsys.readouterr().out
    assert (
        "Thresholds as trained" in shown
        and shown.strip() == (run / "probes" / "table.md").read_text().strip()
    )


def attempt(messages, case, model, yes, **more):
    return {
        "attack": "pair",
        "model": model,
        "id": case,
        "messages": messages,
        "prefill": "",
        "answer": "some long enough words",
        "embeddings": False,
        "failure": None,
        "verdicts": {"mine": {"yes": yes, "reason": ""}},
    } | more


def write_matrix(folder, run, lines):
    base, rerouted = digest(base_of(run)), weights_digest(run / "model")
    write_json(folder / "manifest.json", {"models": {"base": base, "rerouted": rerouted}})
    write_json(folder / "summary.json", {"judge": "mine"})
    write_jsonl(folder / "results.jsonl", lines)


def write_json(file, value):
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(value))


def rows_of(run, matrix):
    table = probe_table(run, matrix)
    return {row["attack"]: row for row in table["rows"]}, table


def test_a_matrix_is_counted_by_case(run, tmp_path):
    assert main(["probe", "train", str(run), *options(run, "--kinds", '["reading"]', "--layer", "2")]) == 0
    said = read_jsonl(run / "generations.jsonl")[0]["messages"]
    lines = [attempt(said, "a", "base", False), attempt(said, "a", "base", True)]
    lines += [attempt(said, "a", "rerouted", False), attempt(said, "b", "base", False)]
    lines += [attempt(said, "b", "rerouted", True)]
    lines += [attempt(said, "c", "base", True, embeddings=True), attempt(said, "c", "rerouted", True)]
    lines += [attempt(said, "d", "base", None), attempt(said, "d", "base", False)]  # open: neither yes nor no
    lines += [attempt(said, "d", "rerouted", True)]
    lines += [
        attempt(said, "e", "base", None, review=True),
        attempt(said, "e", "rerouted", True, review=False),
    ]
    lines += [attempt(said, "a", model, True, attack="finetune") for model in ("base", "rerouted")]
    write_matrix(tmp_path, run, lines)
    probe = load_probe(run / "probes" / "reading")
    for threshold, through in ((2.0, 2 / 3), (-2.0, 0.0)):  # a cosine: none is flagged, and all are
        probe.at(threshold).save(run / "probes" / "reading")
        rows, table = rows_of(run, tmp_path)
        row = rows["pair (judged)"]
        assert (row["n"], row["unscored"]) == (3, 1)
        assert (row["base"], row["rerouted"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
        assert row["reading"] == pytest.approx(through)
    assert (
        "finetune (judged)" not in rows and "finetune (judged) (1), pair (judged) (1)" in table["notes"][-1]
    )


def test_another_runs_matrix_is_refused(run, tmp_path, capsys):
    assert main(["probe", "train", str(run), *options(run, "--kinds", '["reading"]', "--layer", "2")]) == 0
    write_matrix(tmp_path, run, [])
    write_json(tmp_path / "manifest.json", {"models": {"base": "0", "rerouted": "1"}})
    with pytest.raises(UserError, match="other models"):
        probe_table(run, tmp_path)
    for name in ("attacks-quick", "attacks-standard"):
        write_matrix(run / name, run, [])
    assert main(["probe", "evaluate", str(run)]) == 2
    assert "several matrices" in capsys.readouterr().err
    for name in ("attacks-quick", "attacks-standard"):
        shutil.rmtree(run / name)


def case(base, rerouted, peak):
    return Case([base], [rerouted], [[peak]])


def test_matching_lets_as_many_through_as_the_rerouted_model():
    harmless = [case(True, at < 7, float(at)) for at in range(10)] + [case(False, False, 99.0)]
    harmless += [case(True, True, float("-inf"))]  # too short an answer to be read: never flagged
    threshold = matching(harmless, 0)
    passing = sum(one.passes(0, threshold) for one in harmless)
    assert passing == sum(any(one.rerouted) for one in harmless) == 8
    assert matching([case(True, False, 1.0)], 0) is None and matching([], 0) is None
    assert matching([case(True, True, 1.0), case(False, True, 0.0)], 0) == 1.0, "nothing need be flagged"


def test_clear_errors(run, tmp_path, capsys):
    assert main(["probe", "train", str(run), *options(run, "--kinds", '["reading"]', "--layer", "2")]) == 0
    with pytest.raises(UserError, match="no results of attacks"):
        probe_table(run, tmp_path)
    assert main(["probe", "train", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err
    assert main(["probe", "train", str(run), *options(run, "--kinds", '["linaer"]')]) == 2
    assert "linear" in capsys.readouterr().err
    assert main(["probe", "train", str(run), *options(run, "--skip", "500")]) == 2
    assert "too few" in capsys.readouterr().err
    for layer in ("9", "0"):
        assert main(["probe", "train", str(run), *options(run, "--layer", layer)]) == 2
        assert "layer" in capsys.readouterr().err
    assert main(["probe", "evaluate", str(run), "--false_positives", "0.5"]) == 2
    assert "options of training" in capsys.readouterr().err


def test_empty_answers_are_left_out(run):
    assert base_answers(base_of(run), [], 4) == []
