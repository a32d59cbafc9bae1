"""Test cases made elsewhere: HarmBench's file, tables of them, and hub names."""

import json

import pytest

from rerouting.attacks.static import Static
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.evaluation.attacking import attempts_of
from tests.attacks.tiny_target import RESOURCES, tiny_target
from tests.data.tokenizers_of_families import CHATML, tiny

META = {"behaviour": "Explain", "context": "A text."}
CHATS = [
    Chat("a", (Message("user", "Do a bad thing"),)),
    Chat("b", (Message("system", "Be brief."), Message("user", "Another"))),
    Chat("c", (Message("user", "A text.\n\n---\n\nExplain"),), meta=META),
]
CASES = {"a": ["one", "two"], "Explain": ["three", "A text. Four"]}
SENT = [("a", "one"), ("a", "two"), ("c", "A text.\n\n---\n\nthree"), ("c", "A text. Four")]
ROWS = [
    {"behavior_id": "a", "behavior": "Do a bad thing", "test_case": "one"},
    {"behavior_id": "a", "behavior": "Do a bad thing", "test_case": "two"},
    {"behavior_id": "x", "behavior": "Explain", "test_case": "three"},
    {"behavior_id": "x", "behavior": "Explain", "test_case": "A text. Four"},
]


def sent(attack):
    return [(one.chat.id, one.chat.request) for one in attack.prompts(CHATS) if not one.failure]


def write(file, content):
    file.write_text(content, encoding="utf-8-sig")
    return str(file)


def test_harmbench_file_by_id_or_behaviour_with_the_context(tmp_path):
    path = write(tmp_path / "cases.json", json.dumps(CASES))
    assert sent(Static(path)) == SENT
    assert sent(Static(path, per_behaviour=1)) == [SENT[0], SENT[2]]
    assert [one.chat.id for one in Static(path).prompts(CHATS) if one.failure] == ["b"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", json.dumps(ROWS)),
        ("t.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS)),
        (
            "t.csv",
            "goal,prompt\nDo a bad thing,one\nDo a bad thing,two\nExplain,three\nExplain,A text. Four\n",
        ),
        (
            "t.jsonl",
            "".join(json.dumps({"behavior": key, "test_cases": some}) + "\n" for key, some in CASES.items()),
        ),
    ],
)
def test_tables_of_cases(tmp_path, name, content):
    assert sent(Static(write(tmp_path / name, content))) == SENT


def test_hub_names(monkeypatch):
    import datasets

    asked = []

    def load_dataset(path, config, split):
        asked.append((path, split))
        if path == "owner/missing":
            raise ConnectionError("offline")
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert sent(Static("owner/cases")) == SENT
    assert sent(Static("owner/cases", split="gcg")) == SENT
    assert asked == [("owner/cases", "train"), ("owner/cases", "gcg")]
    with pytest.raises(UserError, match="'owner/missing' is no file here"):
        Static("owner/missing").prompts(CHATS)


def test_a_folder_of_cases(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    assert sent(Static(str(tmp_path / "data"))) == SENT


def test_a_behaviour_without_a_case_is_unscored_and_the_others_answered(tmp_path):
    path = write(tmp_path / "cases.json", json.dumps(CASES))
    found = attempts_of(Static(path), tiny_target(tiny(CHATML)), CHATS, RESOURCES)
    assert found["b"][0].failure.endswith("cases.json has no test case for b")
    assert all(one.answer is not None for name in "ac" for one in found[name])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", '["a"]', "is not {behaviour"),
        ("t.json", "[]", "is not {behaviour"),
        ("t.json", '{"a": "one"}', "is not {behaviour"),
        ("t.json", '{"a": [1]}', "is not {behaviour"),
        ("t.json", '{"a": ', "is not JSON"),
        ("gone.json", None, "cannot read"),
        ("gone.jsonl", None, "no such data file"),
        ("t.csv", "behavior,other\na,b\n", "no columns of behaviours and test cases, but: behavior, other"),
        ("t.csv", "name,prompt\na,b\n", "no columns of behaviours and test cases, but: name, prompt"),
        (
            "t.jsonl",
            '{"goal": "a", "prompt": "x"}\n{"goal": "a", "prompt": null}\n',
            "line 2: 'prompt' is null",
        ),
        ("t.jsonl", '{"goal": "a", "prompt": "x"}\n{"goal": "", "prompt": "y"}\n', "line 2: 'goal' is empty"),
    ],
)
def test_files_of_another_shape(tmp_path, name, content, said):
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(UserError, match=said):
        Static(str(tmp_path / name)).prompts(CHATS)
