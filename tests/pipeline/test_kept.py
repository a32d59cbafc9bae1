"""`rerouting evaluate` through the command line, on a tiny run."""

import json
from dataclasses import replace

import pytest

from rerouting.cli.main import main
from rerouting.core.contracts import Judged
from rerouting.core.files import read_jsonl
from rerouting.core.records import Chat, Message
from rerouting.evaluation.kept_config import KeptConfig
from rerouting.measures.facts import Facts
from rerouting.pipeline.kept import _identity, _Labels
from rerouting.pipeline.made_of import sources_of
from tests.pipeline.tiny_run import BENIGN, BENIGN_TEST, HARMFUL_TEST, own_cache, write_chats, write_recipe

OWN = '''
from dataclasses import dataclass
from rerouting.core.contracts import Measured
from rerouting.core.findings import Finding

@dataclass(frozen=True)
class Mine:
    """Counts its calls in a file."""
    value: float = 1.0

    def measure(self, base, rerouted, aids):
        with (aids.folder / "calls").open("a") as calls:
            calls.write("x")
        return Measured([Finding.of_values("value", "points", [self.value, self.value])], [{"a": 1}], ["own"])
'''


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    with own_cache(folder):
        assert main(["train", "--config", str(write_recipe(folder)), "--out", str(folder / "run")]) == 0
        write_chats(folder / "asked.jsonl", [*BENIGN_TEST, BENIGN[0]])
        write_chats(folder / "harm.jsonl", HARMFUL_TEST)
        (folder / "mine.py").write_text(OWN)
        yield folder


def evaluate(tiny, out, measures, options, *more):
    given = ["--measures", json.dumps(measures), "--measure_options", json.dumps(options)]
    return main(["evaluate", str(tiny / "run"), "--out", str(out), "--max_new_tokens", "5", *given, *more])


def chats(tiny, name="asked"):
    return {"name": "chats", "options": {"path": str(tiny / f"{name}.jsonl"), "response": None}}


def test_the_whole_table_and_nothing_twice(tiny, tmp_path, capsys):
    options = {
        "intrinsic": {"sources": [chats(tiny)], "max_tokens": 300},
        "over_refusal": {"sources": [chats(tiny)]},
        "facts": {"source": chats(tiny)},
        "carry_over": {"harmful": chats(tiny, "harm"), "harmless": chats(tiny), "limit": 3},
    }
    assert evaluate(tiny, tmp_path, list(options), options) == 0
    shown = capsys.readouterr().out
    assert "over_refusal" in shown and "coherent second answer" in shown and "layer 1" not in shown
    assert "over_refusal: chats: 1 of 7 left out, the run was trained on them" in shown
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["measures"]) == list(options) and summary["models"]["base"]
    complied = summary["measures"]["over_refusal"]["findings"][0]
    assert (complied["name"], complied["n"]) == ("complied", 6)
    assert len(read_jsonl(tmp_path / "rows" / "over_refusal.jsonl")) == 6
    assert "| intrinsic | drift | layer 1 |" in (tmp_path / "table.md").read_text()
    header = (tmp_path / "table.csv").read_text().splitlines()[0]
    assert header.startswith("measure,figure,of,unit,n,unscored,base,base_low")
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.jsonl")}
    assert evaluate(tiny, tmp_path, list(options), options, "--details") == 0
    assert "layer 1" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.jsonl")} == files


def test_own_measures_and_their_options(tiny, tmp_path, capsys):
    name = f"{tiny}/mine.py:Mine"
    assert evaluate(tiny, tmp_path, [name], {name: {"value": 2.0}}) == 0
    assert evaluate(tiny, tmp_path, [name], {name: {"value": 2.0}}) == 0
    assert (tmp_path / "calls").read_text() == "x"
    assert evaluate(tiny, tmp_path, [name], {name: {"value": 3.0}}) == 0
    assert (tmp_path / "calls").read_text() == "xx"
    assert "3.000" in capsys.readouterr().out


@pytest.mark.long
def test_all_notes_what_could_not_run(tiny, tmp_path, capsys):
    options = {
        "intrinsic": {"sources": [chats(tiny)], "max_tokens": 300, "layers": False},
        "over_refusal": {"sources": [chats(tiny)]},
        "facts": {"source": chats(tiny)},
        "carry_over": {"harmful": chats(tiny, "harm"), "harmless": chats(tiny), "limit": 2},
        "lm_eval": {"tasks": {"no_such_task": {}}},
        "tool_calls": {"limit": 1, "safety_prompt": "", "injection": False},
    }
    assert evaluate(tiny, tmp_path, ["all"], options) == 0
    shown = capsys.readouterr().out
    assert "mt_bench: not run: " in shown and "lm_eval: not run: " in shown and "ending: not run: " in shown
    assert "over_refusal" in shown
    assert evaluate(tiny, tmp_path, ["mt_bench"], {}) == 2


def test_an_edited_file_in_a_folder_of_options_makes_another_result(tiny, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.yaml").write_text("a: 1")
    before = sources_of("x", {"include_path": str(folder)})
    assert len(before) == 1 and sources_of("x", {"path": "."}) == []
    (folder / "a.yaml").write_text("a: 2")
    assert sources_of("x", {"include_path": str(folder)}) != before


@pytest.mark.parametrize(
    ("measures", "options", "said"),
    [
        ([], {}, "no measure was named"),
        (["fact"], {}, "unknown name 'fact' in measures — did you mean facts"),
        (["facts"], {"intrinsic": {}}, "measure_options names 'intrinsic', which is not asked for"),
        (["facts"], {"facts": {"limits": 3}}, "did you mean limit"),
    ],
)
def test_mistakes_are_caught(tiny, tmp_path, capsys, measures, options, said):
    assert evaluate(tiny, tmp_path, measures, options) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "is not a run directory" in capsys.readouterr().err


def test_an_answer_is_seen_beside_the_reference_it_comes_with():
    loop, plain = (
        "and on " * 30,
        "There are many ways to do this; the first is to look around and ask a friend.",
    )

    class OwnAnswersLoop:
        def measured(self, chats, judged):
            return [replace(one, reference=loop, nll=(), reference_nll=()) for one in judged]

    chats = [Chat("one", (Message("user", "q"),))] * 2
    judged = [Judged("q", loop), Judged("q", loop, reference=plain)]
    assert _Labels(OwnAnswersLoop())(chats, judged) == [("answered", ""), ("broken", "loop")]


def test_results_by_an_older_rule_are_not_taken_over(monkeypatch):
    now = _identity("facts", Facts(), KeptConfig(), {})
    assert now == _identity("facts", Facts(), KeptConfig(), {})
    monkeypatch.setattr("rerouting.measures.facts.fact_answers", lambda: {"one": ("another",)})
    assert _identity("facts", Facts(), KeptConfig(), {}) != now
