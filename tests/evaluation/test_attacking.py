"""One attack on one model: what is kept, what is done again, what a failure costs."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Judged, Resources, Verdict
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.evaluation.attacking import Shard, attack_model, fit_folder
from rerouting.evaluation.cases import CaseFile
from rerouting.evaluation.judging import LoopJudge, Scorer, VerdictFile, verdicts_of
from rerouting.models.config import ModelConfig
from rerouting.models.loading import load
from rerouting.targets.target import Target
from tests.pipeline.tiny_run import save_model

CHATS = [Chat(f"c{at}", (Message("user", f"Do thing {at}"),), target="Sure") for at in range(3)]


@dataclass
class Plain:
    """Answers itself; asks the judge if told to."""

    ask: bool = False
    trace: dict[str, Any] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def run(self, target, chats, resources):
        self.seen += [chat.id for chat in chats]
        if self.ask:
            resources.judge([Judged(chat.request, "an answer") for chat in chats])
        return [Attempt(chat, answer="an answer", trace=self.trace) for chat in chats]


class Says:
    """A judge that says no, and keeps what it was shown."""

    uses_likelihoods = True

    def __init__(self):
        self.shown = []

    def verdicts(self, judged):
        self.shown += judged
        return [Verdict(False, "no") for _ in judged]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("model"))
    return load(ModelConfig(name=str(folder), dtype="float32", device="cpu"))


def attack(loaded, folder, attack, chats=CHATS, judge=None, identity="j", shard=None):
    judge = LoopJudge(
        judge or Says(), Scorer(loaded, 4, folder / "l"), {(chat.request, ""): chat for chat in chats}
    )
    file = CaseFile(folder, "x", 0, identity)
    pairs = [("set", chat) for chat in chats]
    resources = Resources(0, judge, None, folder=folder)
    attack_model("x", attack, Target(loaded, 4), pairs, resources, file, shard or Shard())
    return file.rows(chats)


def test_a_changed_request_is_another_case(loaded, tmp_path):
    attack(loaded, tmp_path, Plain())
    changed = [*CHATS[:2], Chat("c2", (Message("user", "Do another thing"),), target="Sure")]
    second = Plain()
    rows = attack(loaded, tmp_path, second, changed)
    assert second.seen == ["c2"] and rows["c2"]["behaviour"] == "Do another thing"


def test_cases_of_a_search_belong_to_the_judge_that_led_it(loaded, tmp_path):
    attack(loaded, tmp_path, Plain(ask=True), identity="one judge")
    other, same = Plain(ask=True), Plain(ask=True)
    attack(loaded, tmp_path, other, identity="another judge")
    attack(loaded, tmp_path, same, identity="one judge")
    assert len(other.seen) == 3 and same.seen == []
    free = Plain()
    attack(loaded, tmp_path / "free", Plain(), identity="one judge")
    attack(loaded, tmp_path / "free", free, identity="another judge")
    assert free.seen == [], "an attack that asks no judge is no judge's"


def test_judging_in_the_loop_has_likelihoods_and_costs_the_attack_nothing(loaded, tmp_path):
    judge = Says()
    rows = attack(loaded, tmp_path, Plain(ask=True), judge=judge)
    assert all(one.nll and one.reference is not None for one in judge.shown)
    assert all(row["cost"]["forward_tokens"] == 0 for row in rows.values())


def test_infinite_values_in_a_trace_are_kept_as_text(loaded, tmp_path):
    rows = attack(loaded, tmp_path, Plain(trace={"losses": [1.0, float("nan")], "best": float("inf")}))
    assert rows["c0"]["attempts"][0]["trace"] == {"losses": [1.0, "nan"], "best": "inf"}


@dataclass
class Fitted(Plain):
    """Learns something first, or fails to."""

    problem: Exception | None = None

    def fit(self, target, resources):
        target.model(input_ids=torch.tensor([[5, 6, 7]]))
        if self.problem:
            raise self.problem
        return {"vector": torch.ones(2)}


def test_what_learning_costs_is_on_record(loaded, tmp_path):
    rows = attack(loaded, tmp_path, Fitted())
    cost = json.loads((fit_folder(CaseFile(tmp_path, "x")) / "cost.json").read_text())
    assert cost["forward_tokens"] == 3 and rows["c0"]["cost"]["forward_tokens"] == 0


@pytest.mark.parametrize(
    "problem", [UserError("no such layer", "choose one"), torch.OutOfMemoryError("out of memory")]
)
def test_an_attack_that_cannot_learn_leaves_every_case_unscored_with_the_reason(loaded, tmp_path, problem):
    rows = attack(loaded, tmp_path, Fitted(problem=problem))
    assert len(rows) == 3
    for row in rows.values():
        assert "before the first behaviour" in row["attempts"][0]["failure"]
    again = attack(loaded, tmp_path, Fitted())
    assert all(row["attempts"][0]["answer"] for row in again.values()), "it is tried again"


def test_a_passing_failure_is_tried_again_and_what_was_answered_is_not_lost(loaded, tmp_path):
    class Half(Plain):
        def run(self, target, chats, resources):
            done = super().run(target, chats, resources)
            return [*done, *(Attempt(chat, failure="time-out", passing=True) for chat in chats)]

    class Nothing(Plain):
        def run(self, target, chats, resources):
            self.seen += [chat.id for chat in chats]
            return [Attempt(chat, failure="gone", passing=True) for chat in chats]

    attack(loaded, tmp_path, Half())
    later = Nothing()
    rows = attack(loaded, tmp_path, later)
    assert later.seen == ["c0", "c1", "c2"]
    assert all(row["attempts"][0]["answer"] for row in rows.values())


def test_an_answer_is_scored_after_what_was_sent(loaded, tmp_path):
    scorer = Scorer(loaded, 4, tmp_path)
    other = Chat("c0", (Message("user", "Tell me a story about it"),))
    plain, sent, begun = scorer.measured(
        [CHATS[0]] * 3,
        [
            Judged("Do thing 0", "Well then"),
            Judged("Do thing 0", "Well then", sent=other),
            Judged("Do thing 0", "Well then", prefill="Sure. "),
        ],
    )
    assert plain.reference == sent.reference == begun.reference
    assert len({plain.nll, sent.nll, begun.nll}) == 3
    again = Scorer(loaded, 4, tmp_path, rank=1)
    assert again.known == scorer.known, "every process knows what one has measured"


def test_memory_running_out_while_judging_halves_the_batch(loaded, tmp_path, monkeypatch):
    texts = ["Well " * (at + 1) for at in range(7)]
    judged = [Judged("Do thing 0", text) for text in texts]
    whole = Scorer(loaded, 4, tmp_path / "whole").measured([CHATS[0]] * 7, judged)
    sizes, forward = [], loaded.model.forward

    def small(*args, **kwargs):
        sizes.append(len(kwargs["packed"].lengths if "packed" in kwargs else kwargs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(loaded.model, "forward", small)
    halved = Scorer(loaded, 4, tmp_path / "small").measured([CHATS[0]] * 7, judged)
    assert max(sizes) == 7 and min(sizes) <= 2
    for one, other in zip(halved, whole, strict=True):
        assert one.nll == pytest.approx(other.nll, abs=1e-3) and one.reference == other.reference


def test_a_sampled_answer_is_compared_with_a_sampled_one(loaded, tmp_path):
    scorer = Scorer(loaded, 8, tmp_path)
    greedy, hot, again = scorer.measured(
        [CHATS[0]] * 3, [Judged("Do thing 0", "Well", temperature=t) for t in (0.0, 5.0, 5.0)]
    )
    assert hot.reference == again.reference != greedy.reference
    assert sum(hot.reference_nll) > sum(greedy.reference_nll)


def test_verdicts_belong_to_likelihoods_only_where_the_judge_uses_them(tmp_path):
    one, other = (Judged("b", "an answer", nll=(value,), reference="r") for value in (1.0, 9.0))
    careful, blind = Says(), Says()
    blind.uses_likelihoods = False
    for judge in (careful, blind):
        for judged in (one, other):
            verdicts_of("says", judge, [judged], VerdictFile(tmp_path, str(id(judge))))
    assert len(careful.shown) == 2 and len(blind.shown) == 1


def test_an_unscored_verdict_is_asked_for_again_unless_told_not_to(tmp_path):
    class Silent(Says):
        def verdicts(self, judged):
            super().verdicts(judged)
            return [Verdict(None, "prose") for _ in judged]

    judge, file = Silent(), VerdictFile(tmp_path, "silent")
    for again in (True, True, False):
        (verdict,) = verdicts_of("silent", judge, [Judged("b", "a")], file, again)
        assert verdict == Verdict(None, "prose")
    assert len(judge.shown) == 2
