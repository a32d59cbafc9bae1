"""Probes of a tiny run through the real command line."""

import json

import pytest

from rerouting.cli.main import main
from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl, write_jsonl
from rerouting.pipeline.pair import base_of
from rerouting.pipeline.probe_table import probe_table
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


def test_a_matrix_is_counted_by_case(run, tmp_path):
    assert main(["probe", "train", str(run), *options(run, "--kinds", '["reading"]', "--layer", "2")]) == 0
    generation = read_jsonl(run / "generations.jsonl")[0]

    def attempt(case, model, yes, soft=False):
        return {
            "attack": "pair",
            "model": model,
            "id": case,
            "messages": generation["messages"],
            "prefill": "",
            "answer": "some long enough words",
            "embeddings": soft,
            "verdicts": {"mine": {"yes": yes, "reason": ""}},
        }

    lines = [attempt("a", "base", False), attempt("a", "base", True), attempt("a", "rerouted", False)]
    lines += [attempt("b", "base", False), attempt("b", "rerouted", True)]
    lines += [attempt("c", "base", True, soft=True), attempt("c", "rerouted", True)]
    lines += [attempt("d", "base", None), attempt("d", "rerouted", True)]
    (tmp_path / "summary.json").write_text('{"judge": "mine"}')
    write_jsonl(tmp_path / "results.jsonl", lines)
    table = probe_table(run, tmp_path)
    row = next(row for row in table["rows"] if row["attack"] == "pair (judged)")
    assert (row["n"], row["base"], row["rerouted"], table["unread"]) == (2, 0.5, 0.5, 1)
    highest = load_probe(run / "probes" / "reading").threshold
    assert row["reading"] in (0.0, 0.5) and highest is not None


def test_clear_errors(run, tmp_path, capsys):
    with pytest.raises(UserError, match="no results of attacks"):
        probe_table(run, tmp_path)
    assert main(["probe", "train", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err
    assert main(["probe", "train", str(run), *options(run, "--kinds", '["linaer"]')]) == 2
    assert "linear" in capsys.readouterr().err
    assert main(["probe", "train", str(run), *options(run, "--skip", "500")]) == 2
    assert "too few" in capsys.readouterr().err
    assert main(["probe", "train", str(run), *options(run, "--layer", "9")]) == 2
    assert "3 layers" in capsys.readouterr().err


def test_empty_answers_are_left_out(run):
    assert base_answers(base_of(run), [], 4) == []
