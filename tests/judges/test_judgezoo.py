"""The adapter to judgezoo, against a small stand-in that behaves as judgezoo 0.1.9 was read to."""

import sys
import types
from typing import ClassVar

import pytest

from rerouting.core.contracts import Judged
from rerouting.core.errors import UserError
from rerouting.judges import judgezoo as module
from rerouting.judges.judgezoo import Judgezoo

ANSWERS = [Judged("one", "0.9"), Judged("two", "0.2", context="A text"), Judged("three", "0.5")]


class Judge:
    """Its score is the answer as a number; the judge `drops` leaves out what it cannot read, like theirs."""

    made: ClassVar = []
    asked: ClassVar = []

    def __init__(self, name, options):
        self.name = name
        Judge.made.append((name, options))

    @classmethod
    def from_name(cls, name, **options):
        if name not in ("strong_reject", "drops"):
            raise ValueError(f"Unknown judge {name}")
        return cls(name, options)

    def __call__(self, chats):
        Judge.asked.append(chats)
        scores = [float(chat[-1]["content"]) for chat in chats if chat[-1]["content"] != "prose"]
        if self.name == "drops":
            assert len(scores) == len(chats)
        return {"p_harmful": [None if score < 0 else score for score in scores]}


@pytest.fixture(autouse=True)
def zoo(monkeypatch):
    fake = types.ModuleType("judgezoo")
    fake.Judge = Judge
    monkeypatch.setitem(sys.modules, "judgezoo", fake)
    monkeypatch.setattr(Judge, "made", [])
    monkeypatch.setattr(Judge, "asked", [])
    module._made.cache_clear()
    yield
    module._made.cache_clear()


def test_scores_and_the_threshold():
    verdicts = Judgezoo().verdicts(ANSWERS)
    assert [(verdict.yes, verdict.score) for verdict in verdicts] == [(True, 0.9), (False, 0.2), (True, 0.5)]
    assert [verdict.yes for verdict in Judgezoo(threshold=0.95).verdicts(ANSWERS)] == [False] * 3


def test_it_is_asked_with_the_behaviour_and_its_context():
    Judgezoo().verdicts(ANSWERS[1:2])
    assert Judge.asked == [
        [[{"role": "user", "content": "A text\n\n---\n\ntwo"}, {"role": "assistant", "content": "0.2"}]]
    ]


def test_a_judge_is_made_once_with_its_options():
    for _ in range(2):
        Judgezoo(options={"use_local_model": True}).verdicts(ANSWERS)
    assert Judge.made == [("strong_reject", {"use_local_model": True})]


def test_no_score_is_unscored():
    one, nan = Judgezoo().verdicts([Judged("b", "-1"), Judged("b", "nan")])
    assert one.yes is None and one.reason == nan.reason == "judgezoo gave no score" and nan.score is None


@pytest.mark.parametrize("name", ["strong_reject", "drops"])
def test_fewer_scores_than_answers_are_asked_for_one_by_one(name):
    answers = [ANSWERS[0], Judged("two", "prose"), ANSWERS[2]]
    verdicts = Judgezoo(name).verdicts(answers)
    assert [verdict.yes for verdict in verdicts] == [True, None, True]
    assert verdicts[1].reason and [len(chats) for chats in Judge.asked] == [3, 1, 1, 1]


def test_an_exception_voids_its_own_row_alone():
    verdicts = Judgezoo().verdicts([ANSWERS[0], Judged("two", "1,0"), ANSWERS[2]])
    assert [verdict.yes for verdict in verdicts] == [True, None, True]
    assert verdicts[1].reason.startswith("judgezoo failed: ValueError: could not convert")


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="cannot make 'strong_rejekt': Unknown judge strong_rejekt"):
        Judgezoo("strong_rejekt").verdicts(ANSWERS)


@pytest.mark.parametrize("name", ["adaptive_attacks", "pair"])
def test_judges_that_need_a_target_are_refused(name):
    with pytest.raises(UserError, match="needs the answer that an attack aimed at"):
        Judgezoo(name)


def test_not_installed_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "judgezoo")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'rerouting\[judges\]'"):
        Judgezoo()


def test_installed_without_what_it_needs_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "judgezoo", None)
    with pytest.raises(UserError, match=r"cannot be imported.*rerouting\[judges\]"):
        Judgezoo().verdicts(ANSWERS)
