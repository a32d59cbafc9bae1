"""`rerouting review` through the command line: verdicts are kept at once, both rates are shown."""

import json

import pytest

from rerouting.cli.main import main
from rerouting.core.files import read_jsonl, write_jsonl

ANSWERS = {"base": ["sure, one", "sure, two", "no"], "rerouted": ["sure, three", "no", "no"]}


@pytest.fixture
def matrix(tmp_path):
    rows = [
        {
            "key": f"direct/{model}/{at}/0",
            "attack": "direct",
            "model": model,
            "id": str(at),
            "set": "s",
            "functional": "standard",
            "behaviour": f"behaviour {at}",
            "context": "a text" if at == 1 else "",
            "cost": {"forward_tokens": 1, "seconds": 1.0},
            "prefill": "",
            "trace": {},
            "answer": answer,
            "failure": None,
            "label": "answered",
            "verdicts": {
                "j": {"yes": answer != "no", "reason": "", "score": None},
                "k": {"yes": at == 0, "reason": "", "score": None},
            },
        }
        for model, answers in ANSWERS.items()
        for at, answer in enumerate(answers)
    ]
    write_jsonl(tmp_path / "results.jsonl", rows)
    summary = {"model": "run", "budget": "quick", "judge": "j", "attacks": {"direct": {}}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def review(monkeypatch, matrix, *keys, options=()):
    typed = iter(keys)

    def answer(prompt):
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)
    return main(["review", str(matrix), "--reader", "me", *options])


def test_a_person_overrules_the_judge(monkeypatch, matrix, capsys):
    assert review(monkeypatch, matrix, "n", "n", "n") == 0
    shown = capsys.readouterr().out
    assert "3 of 3" in shown and "context: a text" in shown
    assert "base" not in shown.split("raw")[0].split("3 of 3")[1].split("direct on")[0], (
        "models are not named"
    )
    rates = json.loads((matrix / "summary.json").read_text())["attacks"]["direct"]["all"]
    assert (rates["base"]["asr"]["hits"], rates["base"]["verified"]["hits"]) == (2, 0)
    assert (rates["rerouted"]["asr"]["hits"], rates["rerouted"]["verified"]["hits"]) == (1, 0)
    assert rates["base"]["verified"]["read"] == 2
    table = (matrix / "table.md").read_text()
    assert "66.7" in table and "2 read" in table and "Cohen's κ" in table
    assert {row["reader"] for row in read_jsonl(matrix / "reviews.jsonl")} == {"me"}


def test_what_was_read_is_kept_when_the_reader_stops(monkeypatch, matrix, capsys):
    assert review(monkeypatch, matrix, "y") == 0  # then end of input
    assert "what was read is kept" in capsys.readouterr().out
    assert len(read_jsonl(matrix / "reviews.jsonl")) == 1
    assert review(monkeypatch, matrix, "x", "s", "b", "q") == 0
    assert "1 of 2" in capsys.readouterr().out, "what was read is not asked again"
    assert len(read_jsonl(matrix / "reviews.jsonl")) == 1


def test_a_word_can_be_taken_back(monkeypatch, matrix):
    assert review(monkeypatch, matrix, "y", "b", "s", "q") == 0
    assert [row["yes"] for row in read_jsonl(matrix / "reviews.jsonl")] == [True, None]
    rates = json.loads((matrix / "summary.json").read_text())["attacks"]["direct"]["all"]
    assert rates["base"]["verified"] is None and rates["rerouted"]["verified"] is None


def test_answers_cannot_steer_the_terminal(monkeypatch, matrix, capsys):
    rows = read_jsonl(matrix / "results.jsonl")
    write_jsonl(matrix / "results.jsonl", [row | {"answer": row["answer"] + "\x1b[2J"} for row in rows])
    assert review(monkeypatch, matrix, options=["--show", "all"]) == 0
    shown = capsys.readouterr().out
    assert "[2J" in shown and "\x1b" not in shown


def test_disagreement_and_bad_choices(monkeypatch, matrix, capsys):
    assert review(monkeypatch, matrix, options=["--show", "disagreement"]) == 0
    assert "1 of 1 · behaviour: behaviour 1" in capsys.readouterr().out
    assert review(monkeypatch, matrix, options=["--judge", "nobody"]) == 2
    assert "choose from: j, k" in capsys.readouterr().err
    assert review(monkeypatch, matrix, options=["--attack", "gcg"]) == 2
    assert main(["review", str(matrix / "nowhere")]) == 2
