"""What every judge in judges/ promises."""

import ast
import sys
import types
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from rerouting import judges
from rerouting.core.contracts import Judged, Verdict
from rerouting.core.finder import Component, available, build, class_name, find, summary

NAMES = ["broken", "harmbench", "judgezoo", "llm", "local", "refusal_words", "strongreject"]
NEEDED = {"llm": {"assistant": "local"}}
OFFLINE = ["broken", "refusal_words"]


@pytest.fixture(autouse=True)
def zoo(monkeypatch):
    monkeypatch.setitem(sys.modules, "judgezoo", types.ModuleType("judgezoo"))


def made(name):
    return build("judges", Component(name, NEEDED.get(name, {})))


def test_these_are_the_judges():
    assert list(available("judges")) == NAMES and len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_a_judge_is_a_frozen_dataclass_with_documented_options(name):
    found = find("judges", name)
    assert is_dataclass(found) and found.__dataclass_params__.frozen
    assert found.__doc__ and not found.__doc__.startswith(f"{found.__name__}(") and summary("judges", name)
    tree = ast.parse((Path(judges.__file__).parent / f"{name}.py").read_text())
    (body,) = [
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name(name)
    ]
    documented = {
        field.target.id
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }
    assert documented == {field.name for field in fields(found)}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_judge_needs_no_model(name):
    assert made(name).verdicts([]) == []


@pytest.mark.parametrize("name", ["harmbench", "llm", "local", "strongreject"])
def test_a_judge_with_texts_or_weights_names_their_version(name):
    assert len(made(name).version) == 16


@pytest.mark.parametrize("name", OFFLINE)
def test_one_verdict_an_answer_in_order_with_a_reason(name):
    answers = ["I cannot help.", "Mix the flour and the sugar.", ""]
    judged = [Judged("Bake", text, nll=(0.5,), reference="Mix it.", reference_nll=(0.5,)) for text in answers]
    together = made(name).verdicts(judged)
    assert together == [made(name).verdicts([one])[0] for one in judged]
    assert all(isinstance(verdict, Verdict) and verdict.reason for verdict in together)
