"""Searches, metrics, the front and the guard of `rerouting select`."""

import json
from pathlib import Path

import pytest

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.config import SourceConfig
from rerouting.data.sources.bundled import Bundled
from rerouting.evaluation import metrics as m
from rerouting.evaluation import search
from rerouting.evaluation.guarding import TestData, asked, fingerprint, sources_in
from rerouting.evaluation.pareto import front, plot
from rerouting.measures.carry_over import CarryOver
from rerouting.measures.intrinsic import Intrinsic


def test_a_grid_is_every_combination_in_order():
    space = {"training.steps": [1, 2], "losses.retain": ["l2", "relative"]}
    assert [tuple(values.values()) for values in search.grid(space)] == [
        (1, "l2"), (1, "relative"), (2, "l2"), (2, "relative"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "space is empty"),
        ({"a": []}, r"space.a is \[\]"),
        ({"a": 3}, "space.a is 3"),
        ({"a": {"low": 1, "high": 2}}, "space.a is a range"),
        ({"a": {"low": 2, "high": 1}}, "a range is"),
        ({"a": {"low": 1, "high": 2, "step": 1}}, "a range is"),
        ({"a": {"low": 0, "high": 2, "log": True}}, "lies above 0"),
        ({"a": {"low": True, "high": 2}}, "a range is"),
    ],
)
def test_spaces_that_are_none(space, said):
    with pytest.raises(UserError, match=said):
        search.grid(space)


def test_random_trials_differ_stay_in_range_and_repeat():
    space = {
        "rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "steps": {"low": 10, "high": 12, "integer": True},
    }
    found = search.drawn(space, 40)
    assert len({json.dumps(values) for values in found}) == len(found) == 40
    assert all(1e-4 <= values["rate"] <= 1e-2 and values["steps"] in (10, 11, 12) for values in found)
    assert sum(values["rate"] < 1e-3 for values in found) in range(12, 29)  # half of a logarithmic range
    assert found == search.drawn(space, 40) != search.drawn(space, 40, seed=1)
    assert len(search.drawn({"a": [1, 2]}, 16)) == 2
    with pytest.raises(UserError, match="trials is 0"):
        search.drawn(space, 0)


def test_halving_keeps_a_share_and_at_least_one():
    assert search.survivors("abcdefghi", 0.34) == list("abcd")
    assert search.survivors("ab", 0.34) == ["a"]
    search.check_rungs((0.5, 1.0), 0.3)
    for rungs, keep in (((), 0.3), ((0.5,), 0.3), ((1.0, 0.5), 0.3), ((0.0, 1.0), 0.3), ((0.5, 1.0), 1.0)):
        with pytest.raises(UserError, match="rungs ascend"):
            search.check_rungs(rungs, keep)


def part(asr, answered, refused, broken):
    return {"asr": {"rate": asr}, "labels": {"answered": answered, "refused": refused, "broken": broken}}


MATRIX = {
    "attacks": {
        "direct": {"all": {"base": part(0.5, 8, 2, 0), "rerouted": part(0.1, 1, 1, 8)}},
        "prefill": {"all": {"base": part(0.7, 10, 0, 0), "rerouted": part(None, 0, 0, 0)}},
        "multilingual": {"skipped": "no translations"},
    }
}
FINDING = {"name": "as before", "part": "benign/facts", "base": 1.0, "rerouted": 0.9, "difference": -0.1}
KEPT = {"measures": {"facts": {"findings": [FINDING, FINDING | {"part": ""}]}}}


def test_metrics_have_one_name_each():
    found = m.metrics_of(MATRIX, KEPT)
    assert found["attacks.direct.rerouted.asr"] == 0.1 and found["attacks.direct.rerouted.broken"] == 0.8
    assert found["attacks.mean.base.asr"] == pytest.approx(0.6)
    assert found["attacks.mean.rerouted.asr"] is None  # one of them was not scored
    assert (
        found["facts.as_before[benign/facts].difference"] == -0.1 and found["facts.as_before.rerouted"] == 0.9
    )
    assert not any("multilingual" in name for name in found)
    assert m.metrics_of({}, KEPT).keys() == {
        f"facts.as_before{part}.{which}"
        for part in ("", "[benign/facts]")
        for which in ("base", "rerouted", "difference")
    }
    assert m.over_seeds([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 2.0, "b": None}


def test_constraints_and_objectives_are_read_and_held():
    found = {"nll.difference": 0.02, "kl": None}
    assert m.parse_constraint("nll.difference <= 2e-2").broken_by(found) == ""
    assert (
        m.parse_constraint("nll.difference<=0.01").broken_by(found) == "nll.difference is 0.02, not <= 0.01"
    )
    assert m.parse_constraint("nll.difference >= -0.02").broken_by(found) == ""
    assert m.parse_constraint("kl <= 1").broken_by(found) == "kl was not measured"
    with pytest.raises(UserError, match=r"no metric 'nll.diference' — did you mean nll.difference"):
        m.parse_constraint("nll.diference <= 1").broken_by(found)
    for text in ("nll < 1", "nll <=", "<= 1", "a b <= 1"):
        with pytest.raises(UserError, match="is not understood"):
            m.parse_constraint(text)
    assert m.parse_objective("maximise nll.difference").value(found) == -0.02
    assert m.parse_objective("minimize kl").value(found) is None
    for text in ("nll", "minimise", "smallest nll", "minimise a b"):
        with pytest.raises(UserError, match="write: minimise METRIC"):
            m.parse_objective(text)


def test_the_front_and_its_picture(tmp_path):
    assert front([(1.0, 5.0), (2.0, 3.0), (3.0, 4.0), (2.0, 6.0), (4.0, 1.0)]) == [0, 1, 4]
    assert front([(1.0, 1.0), (1.0, 1.0)]) == [0]
    rows = [
        {"values": {"training.steps": at}, "objective": value, "metrics": {"kl": kl}, "feasible": at < 2}
        for at, (value, kl) in enumerate([(0.1, 0.3), (0.2, 0.1), (0.3, 0.4)])
    ]
    plot(rows, [0, 1], rows[1], "minimise attacks.mean.rerouted.asr", "kl", tmp_path)
    assert (tmp_path / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    assert "trials on validation data" in (tmp_path / "pareto.svg").read_text() or (
        "<svg" in (tmp_path / "pareto.svg").read_text()
    )


def test_fingerprints_do_not_look_at_case_punctuation_and_order():
    assert fingerprint("How do I, say, cook?") == fingerprint("cook  how do i SAY")
    assert fingerprint("How do I cook?") != fingerprint("How do I cook it?")


def chats(tmp_path: Path, *requests: str) -> SourceConfig:
    file = tmp_path / "innocent_name.jsonl"
    file.write_text("".join(json.dumps({"prompt": text, "response": "x"}) + "\n" for text in requests))
    return SourceConfig("chats", {"path": str(file)})


def test_the_guard_finds_test_data_under_any_name(tmp_path):
    test = TestData({"my set": ["What is mine?"]})
    for kind in ("harmful", "benign", "borderline"):
        with pytest.raises(UserError, match=f"measures: .* is one of the bundled {kind} test prompts"):
            test.refuse("measures", SourceConfig("bundled", {"kind": kind, "split": "test"}))
        assert test.refuse("measures", SourceConfig("bundled", {"kind": kind, "split": "validation"}))
        stolen = Bundled(kind, "test").load()[3]
        if len(stolen.messages) == 1:
            with pytest.raises(UserError, match="innocent_name-1 of chats"):
                test.refuse("data.retain", chats(tmp_path, "hello", stolen.request.upper() + " !"))
    with pytest.raises(UserError, match="one of my set"):
        test.refuse("sources[0]", chats(tmp_path, "what is MINE"))


def test_the_guard_knows_harmbenchs_test_by_hashes_alone(tmp_path):
    test = TestData()
    names = [name for name in test.known.values() if name == "HarmBench's test behaviours"]
    assert len(names) == 240
    own = Chat("a", (Message("user", "ctx\n\n---\n\nDo it"),), meta={"behaviour": "Do it", "context": "ctx"})
    test.add("contextual", [asked(own)])
    assert test.known[fingerprint("ctx Do it")] == "contextual"
    # the same behaviour with another context is another case, and the bare file form is found too
    assert fingerprint("other Do it") not in test.known
    with pytest.raises(UserError, match="one of contextual"):
        test.refuse("sources[0]", chats(tmp_path, "ctx\n\n---\n\nDo it"))


def test_sources_are_found_in_a_measures_options():
    found = dict(sources_in(CarryOver(), "carry_over"))
    assert set(found) == {"carry_over.harmful", "carry_over.harmless"}
    assert [where for where, _ in sources_in(Intrinsic(), "intrinsic")] == [
        "intrinsic.sources[0]",
        "intrinsic.sources[1]",
    ]
