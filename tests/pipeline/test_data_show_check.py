"""`rerouting data show` and `data check`: figures, folding, and every fault with its line."""

import json
import re

import pytest

from rerouting.cli.main import main
from rerouting.core.errors import UserError
from rerouting.data.columns import guessed
from rerouting.data.sources.bundled import Bundled
from rerouting.pipeline.data_check import Limits, check
from rerouting.pipeline.data_show import folded, show
from tests.data.test_sources import turns
from tests.data.tokenizers_of_families import CHATML, tiny

ANSWER = "You can take the bus from the old harbour to the market and walk from there."


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def figures(shown):
    return dict(shown.rows)


def test_show_counts_splits_lengths_and_forms(capsys):
    shown = show("bundled", {"kind": "harmful"}, [], samples=2, harmful=False)
    chats = Bundled("harmful").load()
    found = figures(shown)
    assert (
        found["chats"] == f"{len(chats):,}"
        and f"train {len(chats)}" in found["splits"]
        and "test " in found["splits"]
    )
    words = sorted(len(chat.request.split()) for chat in chats)
    assert found["words of a request"].startswith(f"{words[0]} to {words[-1]}, median ")
    assert shown.licence == "Apache-2.0" and found["like evaluation prompts"] == "none"
    assert sum(int(part.split()[-1]) for part in found["categories"].split(", ")) == len(chats)
    assert main(["data", "show", "bundled", "--options", "{kind: harmful}", "--samples", "1"]) == 0
    out = capsys.readouterr().out
    assert "Apache-2.0" in out and "--show-harmful shows it" in out and chats[0].request not in out


def test_harmful_text_is_shown_when_asked_for_and_benign_text_always(capsys):
    request = Bundled("harmful").load()[0].request
    assert (
        main(["data", "show", "bundled", "--options", "{kind: harmful}", "--samples", "1", "--show-harmful"])
        == 0
    )
    assert request in capsys.readouterr().out
    benign = show("bundled", {"kind": "benign"}, [], samples=1, harmful=False)
    assert Bundled("benign").load()[0].request in benign.samples[0]
    assert folded("one two three four five six") == "one two three … [3 words folded]"
    assert folded("a b c d e f g h i j k") == "a b c d … [7 words folded]" and folded("") == "(empty)"


def test_show_names_the_evaluation_sets_that_rows_are_from():
    test = show("bundled", {"kind": "borderline", "split": "test"}, [], samples=0, harmful=False)
    count = len(Bundled("borderline", "test").load())
    assert figures(test)["like evaluation prompts"] == f"the bundled borderline test prompts {count}"
    assert test.samples == []


def test_show_a_file_with_guessed_columns(tmp_path, capsys):
    rows = [
        {"question": f"Where is the bridge number {at}?", "answer": ANSWER, "type": "ab"[at % 2]}
        for at in range(4)
    ]
    rows[3]["question"] = "How does one bake the bread of the old harbour town?"
    path = write(tmp_path / "own.jsonl", rows)
    against = write(
        tmp_path / "test.jsonl", [{"prompt": "How does one bake the bread of the new harbour town?"}]
    )
    source = f"[{{name: chats, options: {{path: {against}, response: null}}}}]"
    assert main(["data", "show", path, "--against", source, "--samples", "4"]) == 0
    out = capsys.readouterr().out
    assert "'prompt': 'question'" in out and "a 2, b 2" in out and "chats 1" in out
    assert "Where is the … [3 words folded]" in out, "who knows what a file holds"
    with pytest.raises(UserError, match="no column is known to be a request; there are: foo"):
        show(write(tmp_path / "no.jsonl", [{"foo": "x"}]), {}, [], 0, False)
    with pytest.raises(UserError, match="did you mean bundled"):
        show("bundeld", {}, [], 0, False)


def test_show_a_text_file(tmp_path):
    (tmp_path / "book.txt").write_text("word " * 300)
    shown = show(str(tmp_path / "book.txt"), {"chunk_words": 100}, [], 1, True)
    assert (
        figures(shown)["chats"] == "3"
        and "documents'" in shown.licence
        and "assistant: word" in shown.samples[0]
    )


def test_columns_are_guessed_by_the_names_that_sets_use():
    assert guessed(["instruction", "input", "output"]) == {
        "prompt": "instruction", "response": "output", "context": "input",
    }  # fmt: skip
    assert guessed(["conversation", "language"]) == {"messages": "conversation", "response": None}
    assert guessed(["Goal", "Target", "Behavior", "Category"]) == {
        "prompt": "Goal", "target": "Target", "category": "Category", "response": None,
    }  # fmt: skip


GOOD = [
    {"prompt": "Which bus goes to the old market?", "response": ANSWER},
    {"prompt": "Name a museum with a garden.", "response": f"{ANSWER} It is the red house on the left."},
]


def faults_of(found):
    return [(re.search(r"line \d+", one.where)[0], one.kind) for one in found.faults]


def test_check_finds_nothing_in_a_good_file(tmp_path, capsys):
    path = write(tmp_path / "good.jsonl", GOOD)
    assert main(["data", "check", path]) == 0
    out = capsys.readouterr().out
    assert "2 rows, read as prompt = prompt, response = response" in out and "no fault found" in out


def test_check_names_every_fault_with_its_line(tmp_path, capsys):
    evaluated = Bundled("harmful", "test").load()[0].request
    rows = [
        GOOD[0],
        "{not json",
        {"prompt": 7, "response": ANSWER},
        {"response": ANSWER},
        "",
        {"prompt": "which BUS goes to the old market？", "response": ANSWER},
        {"prompt": evaluated, "response": f"{ANSWER} And that is all there is."},
        {"prompt": "Where does the ferry leave?", "response": "Wait there. " * 20},
        {"prompt": "Where does the train leave?", "response": ""},
        {"prompt": "Where does the plane leave?", "response": "I'm sorry, but I can't help with that."},
        "[1, 2]",
    ]
    path = write(tmp_path / "bad.jsonl", rows)
    assert main(["data", "check", path, "--answers", "comply"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-2] == [
        f"{path}, line 2: unreadable: not valid JSON (Expecting property name enclosed in double quotes, column 2)",
        f"{path}, line 3: unreadable: 'prompt' is of type int, not text",
        f"{path}, line 4: unreadable: no column 'prompt'",
        f"{path}, line 6: duplicate: of line 1, likeness 1.00",
        f"{path}, line 7: like an evaluation prompt: the bundled harmful test prompts",
        f"{path}, line 8: response is a loop: {lines[5].rpartition(' ')[2]}",
        f"{path}, line 9: response is empty",
        f"{path}, line 10: response is a refusal",
        f"{path}, line 11: unreadable: of type list, not an object",
    ]
    assert lines[-2].startswith("10 rows") and lines[-1].startswith("9 faults: unreadable 4, ")


def test_check_csv_goes_on_after_a_broken_row(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(
        "prompt,response\nWhich way is north?,a, b\nWhich way is the sea?,Down the hill to the left.\nx\n"
    )
    found = check(str(path), {}, Limits())
    assert faults_of(found) == [("line 2", "unreadable"), ("line 4", "unreadable")] and found.rows == 3


def test_check_roles(tmp_path):
    rows = [
        {"messages": turns("Which bus goes there?", ANSWER, "And back?", f"{ANSWER} Back as well.")},
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                *turns("Where is the town hall?", f"There. {ANSWER}"),
            ]
        },
        {"messages": [*turns("Which tram is it?"), *turns("Which tram is it, please?", f"Tram. {ANSWER}")]},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": turns("", "Yes?", "Where is the new library?", f"Library. {ANSWER}")},
    ]
    found = check(write(tmp_path / "turns.jsonl", rows), {}, Limits())
    assert faults_of(found) == [("line 3", "roles"), ("line 4", "unreadable"), ("line 5", "empty turn")]


def test_check_tokens_and_masks(tmp_path):
    rows = [
        {"prompt": "Which bus goes to the old market?", "response": "Number nine."},
        {"prompt": "Which tram? " + "Tell me please. " * 4, "response": "Number one, " + ANSWER},
    ]
    path = write(tmp_path / "long.jsonl", rows)
    assert check(path, {}, Limits(tokenizer=tiny(CHATML))).faults == []
    # One token a byte: the requests have 33 and 76, the template adds about 100.
    found = check(path, {}, Limits(tokenizer=tiny(CHATML), max_prompt=160, max_response=60))
    assert faults_of(found) == [("line 2", "prompt is cut"), ("line 2", "response is cut")]
    assert "training keeps 160" in found.faults[0].detail
    bare = check(path, {}, Limits(tokenizer=tiny(None)))
    assert [one.kind for one in bare.faults] == ["chat template"] * 2


def test_check_balance_and_given_columns(tmp_path):
    rows = [
        {"q": f"Which {word} stands on hill number {at * 37 % 101}?", "c": kind}
        for kind, count in (("a", 44), ("b", 2), ("c", 4))
        for at, word in enumerate(f"{kind}{at}house" for at in range(count))
    ]
    path = write(tmp_path / "own.jsonl", rows)
    limits = Limits(cleaning=Limits().cleaning.__class__(near=None))
    found = check(path, {"prompt": "q", "category": "c"}, limits)
    assert [(one.where, one.kind) for one in found.faults] == [(path, "unbalanced")]
    assert found.faults[0].detail == "category 'a' has 44 rows, the median category 4"
    with pytest.raises(UserError, match="has no option 'promt' — did you mean prompt"):
        check(path, {"promt": "q"}, limits)


def test_check_options_reach_the_rules(tmp_path, capsys):
    path = write(tmp_path / "good.jsonl", GOOD)
    assert main(["data", "check", path, "--answers", "decline"]) == 1
    assert "response is no refusal 2" in capsys.readouterr().out
    assert main(["data", "check", path, "--cleaning", "{max_words: 6}"]) == 1
    assert "request too long: 7 words" in capsys.readouterr().out
    assert main(["data", "check", path, "--cleaning", "{max_word: 6}"]) == 2
    assert "did you mean max_words" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "none.jsonl")]) == 2
    assert main(["data"]) == 2 and main(["data", "chek"]) == 2
