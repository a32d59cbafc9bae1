"""BFCL's rules on cases by hand, and the measure on files of its form."""

import json

import pytest

from rerouting.agents.bfcl import bfcl_mismatch
from rerouting.core.contracts import Aids
from rerouting.core.errors import UserError
from rerouting.core.records import Call
from rerouting.measures.bfcl import Bfcl
from tests.data.tokenizers_of_families import CHATML, tiny

AREA = {
    "name": "geo.area",
    "description": "Area of a triangle.",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "integer"},
            "height": {"type": "float"},
            "unit": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "at": {"type": "dict", "properties": {}},
            "points": {"type": "array", "items": {"type": "dict"}},
            "deep": {"type": "boolean"},
        },
        "required": ["base"],
    },
}
KEY = {
    "geo.area": {
        "base": [10],
        "height": [5.0, 6.0],
        "unit": ["Square metres", ""],
        "tags": [["Old-town", "b"], ""],
        "at": [{"x": [1], "name": ["A b", ""]}, ""],
        "points": [[{"x": [1]}, {"x": [2]}], ""],
        "deep": [True, ""],
    }
}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, ""),
        ({"height": 5}, ""),
        ({"height": 6.0, "unit": "square-metres"}, ""),
        ({"unit": "metres"}, "unit differs"),
        ({"unit": 7}, "unit differs"),
        ({"height": "5.0"}, "height differs"),
        ({"base": 10.0}, "base differs"),
        ({"base": True}, "base differs"),
        ({"base": None}, "base differs"),
        ({"tags": ["oldtown", "B"]}, ""),
        ({"tags": ["b", "oldtown"]}, "tags differs"),
        ({"tags": "oldtown"}, "tags differs"),
        ({"at": {"x": 1}}, ""),
        ({"at": {"x": 1, "name": "ab"}}, ""),
        ({"at": {"name": "ab"}}, "at differs"),
        ({"at": {"x": 1, "y": 2}}, "at differs"),
        ({"points": [{"x": 1}, {"x": 2}]}, ""),
        ({"points": [{"x": 2}, {"x": 1}]}, "points differs"),
        ({"points": [{"x": 1}]}, "points differs"),
        ({"points": [1, 2]}, "points differs"),
        ({"deep": True}, ""),
        ({"deep": 1}, "deep differs"),
        ({"colour": "red"}, "colour was not asked for"),
    ],
)
def test_one_argument_changed(arguments, reason):
    call = Call("geo.area", {"base": 10, "height": 5.0} | arguments)
    assert bfcl_mismatch([call], [AREA], [KEY]) == reason


def test_names_counts_and_order():
    right = Call("geo.area", {"base": 10, "height": 5.0})
    other = {
        "name": "geo.side",
        "parameters": {"type": "dict", "properties": {"n": {"type": "integer"}}, "required": []},
    }
    keys = [KEY, {"geo.side": {"n": [3]}}]
    assert bfcl_mismatch([Call("area", right.arguments)], [AREA], [KEY]) == "another function"
    assert bfcl_mismatch([Call("geo.area", {"height": 5.0})], [AREA], [KEY]) == "base is missing"
    assert bfcl_mismatch([Call("geo.area", {"base": 10})], [AREA], [KEY]) == "height is missing"
    assert bfcl_mismatch([right, right], [AREA], [KEY]) == "2 calls, not 1"
    assert bfcl_mismatch([], [AREA], []) == "" and bfcl_mismatch([right], [AREA], [])
    assert not bfcl_mismatch([Call("geo.side", {"n": 3}), right], [AREA, other], keys)
    assert bfcl_mismatch([right, right], [AREA, other], keys) == "no call matches geo.side"


class Says:
    def __init__(self, answers, tokenizer):
        self.answers, self.tokenizer = answers, tokenizer

    def answer(self, attempts):
        return [self.answers[attempt.chat.id] for attempt in attempts]


def written(folder):
    rows = [
        {
            "id": f"simple_python_{at}",
            "question": [[{"role": "user", "content": f"Area {at}?"}]],
            "function": [AREA],
        }
        for at in range(2)
    ]
    none = {"id": "irrelevance_0", "question": [[{"role": "user", "content": "Sing."}]], "function": [AREA]}
    (folder / "possible_answer").mkdir()
    for name, own in (
        ("BFCL_v4_simple_python", rows),
        ("BFCL_v4_live_simple_python", [{}]),
        ("BFCL_v4_irrelevance", [none]),
        ("possible_answer/BFCL_v4_simple_python", [{"id": one["id"], "ground_truth": [KEY]} for one in rows]),
    ):
        (folder / f"{name}.json").write_text("".join(json.dumps(one) + "\n" for one in own))


def test_both_models_are_scored_by_category(tmp_path):
    written(tmp_path)
    call = json.dumps({"name": "geo.area", "arguments": {"base": 10, "height": 5}})
    tokenizer = tiny(CHATML)
    base = Says(
        {"simple_python_0": call, "simple_python_1": f"I call {call}", "irrelevance_0": "La la."}, tokenizer
    )
    worse = Says({"simple_python_0": call, "simple_python_1": call[:-2], "irrelevance_0": call}, tokenizer)
    measure = Bfcl(path=str(tmp_path), categories=["simple_python", "irrelevance"])
    found = measure.measure(base, worse, Aids(0, lambda chats, judged: [], assistant=None))
    figures = {one.part: (one.n, one.base, one.rerouted) for one in found.findings}
    assert figures == {
        "": (3, 1.0, pytest.approx(1 / 3)),
        "simple_python": (2, 1.0, 0.5),
        "irrelevance": (1, 1.0, 0.0),
    }
    assert [row["rerouted"]["broken"] for row in found.rows] == [[], ["cut off"], []]
    assert found.notes == ["functions and calls are written as: json"]


def test_what_is_missing_is_said(tmp_path):
    tokenizer = tiny(CHATML)
    says = Says({}, tokenizer)
    aids = Aids(0, lambda chats, judged: [], assistant=None)
    for measure, text in (
        (Bfcl(), "no questions of simple_python in no folder"),
        (Bfcl(path=str(tmp_path)), "pip download bfcl-eval"),
        (Bfcl(categories=["simple"]), "no category 'simple'"),
    ):
        with pytest.raises(UserError) as error:
            measure.measure(says, says, aids)
        assert text in str(error.value)
    written(tmp_path)
    (tmp_path / "possible_answer" / "BFCL_v4_simple_python.json").write_text("")
    with pytest.raises(UserError, match="no answer key"):
        Bfcl(path=str(tmp_path), categories=["simple_python"]).measure(says, says, aids)
