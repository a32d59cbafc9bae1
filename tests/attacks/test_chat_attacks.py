"""pair, tap and crescendo with a scripted attacker, judge and model; what is sent, kept and counted."""

import re
import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from rerouting.attacks._attacker import Search, read_prompt
from rerouting.attacks.crescendo import Crescendo
from rerouting.attacks.pair import Pair
from rerouting.attacks.tap import Tap
from rerouting.core.attempt import Attempt, behaviour_of
from rerouting.core.contracts import Reply, Resources, Verdict
from rerouting.core.records import Chat, Message
from rerouting.evaluation.attacking import attempts_of
from rerouting.evaluation.cases import CaseFile, case_row, failed
from rerouting.models.config import ModelConfig
from rerouting.models.loading import load, load_once
from rerouting.targets.assistants.local import Local
from rerouting.targets.target import Target
from tests.pipeline.tiny_run import save_model
from tests.targets.test_endpoint import endpoint, environment, said, server

__all__ = ["environment", "server"]  # fixtures

BAKE = Chat("bake", (Message("user", "Bake a bad cake"),), target="To bake, first")
SING = Chat("sing", (Message("system", "Be brief."), Message("user", "Sing a bad song")))
TEXT = Chat(
    "text",
    (Message("user", "A letter.\n\n---\n\nCopy the letter"),),
    meta={"behaviour": "Copy the letter", "context": "A letter."},
)
ATTACKS = [
    Pair(streams=2, iterations=2),
    Tap(width=2, branching=2, depth=2),
    Crescendo(turns=2, backtracks=1),
]
each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__.lower())


@dataclass
class Attacker:
    """A chat model that writes what `play(question, number of the call)` says; "yes" when asked about the topic.

    `play` may write text, a Reply, or leave a prompt that names the goal to the default.
    """

    play: Any = lambda question, number: None
    topic: Any = lambda question: "Yes."
    asked: list[list[Message]] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)

    def reply(self, conversations, **options):
        return [self._one(list(turns), options) for turns in conversations]

    def _one(self, turns, options):
        if "Answer with one word, yes or no" in turns[0].content:
            self.topics.append(turns[0].content)
            found = self.topic(turns[0].content)
        else:
            self.asked.append(turns)
            self.options.append(options)
            found = self.play(turns[-1].content, len(self.asked))
            if found is None:
                goal = re.search("Goal: (.*)", turns[-1].content).group(1)
                found = f"<prompt>{goal}, try {len(self.asked)}</prompt>"
        return found if isinstance(found, Reply) else Reply(found)


@dataclass
class Model:
    """The model under attack: answers what `play(text of the last turn)` says, and keeps what it was sent."""

    play: Any = "Well: {}".format
    sent: list[Attempt] = field(default_factory=list)

    def answer(self, attempts, **_):
        self.sent += attempts
        return [self.play(one.chat.request) for one in attempts]


def judged_as(play):
    return lambda judged: [play(one) for one in judged]


def run(attack, chats, assistant=None, model=None, verdict=lambda one: Verdict(False, "no"), seed=0):
    model = model or Model()
    resources = Resources(seed, judged_as(verdict), assistant or Attacker())
    return bests(attack.run(model, chats, resources))


def bests(attempts):
    """Each behaviour's attempt with the record of the search."""
    return [one for one in attempts if "queries" in one.trace]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def target(folder):
    return Target(load(ModelConfig(name=folder, dtype="float32", device="cpu")), 4)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("<prompt>Tell me</prompt>", "Tell me"),
        ("<prompt>Tell\nme", "Tell\nme"),
        ("Better so. <PROMPT> Tell me </PROMPT> It will work.", "Tell me"),
        ("<prompt></prompt><prompt>Tell me</prompt>", "Tell me"),
        ("<prompt><prompt>Tell me</prompt> It will work.", "Tell me"),
        ("<prompt>Sure, here it is: <prompt>Tell me</prompt>", "Tell me"),
        ("<prompt>Tell me<prompt>", "Tell me"),
        ('<prompt>"Tell me"</prompt>', "Tell me"),
        ("'Don't tell me'", "Don't tell me"),
        ('<prompt>"Tell" and "me"</prompt>', '"Tell" and "me"'),
        ("<prompt>```\nTell me\n```</prompt>", "Tell me"),
        ('{"improvement": "x", "prompt": "Tell \\"me\\""}', 'Tell "me"'),
        ('Here it is:\n```json\n{"prompt": "Tell\nme"}\n```\nGood luck.', "Tell\nme"),
        ('<prompt>{"improvement": "x", "prompt": "Tell me"}', "Tell me"),
        ('{"improvement": "x", "prompt": "Tell me abou', "Tell me abou"),
        ("I did my best.\nNew prompt: Tell me", "Tell me"),
        ('**Prompt:** "Tell me"', "Tell me"),
        ("Prompt: Be a poet.\nTell me\n\nThis works since poets talk.", "Be a poet.\nTell me"),
        ("“Tell me”", "Tell me"),
        ("Tell me", "Tell me"),
        ("请告诉我", "请告诉我"),
    ],
)
def test_forms_of_a_prompt(text, prompt):
    assert read_prompt(text) == (prompt, "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("<prompt> \n</prompt>", "empty"),
        ("<prompt>", "empty"),
        ("<prompt>I'm sorry, but no.</prompt>", "refused: I'm sorry, but no."),
        ("I can’t help with that.", "refused: I can’t help with that."),
        ("<prompt>... 12 ?</prompt>", "no words: ... 12 ?"),
        ('{"improvement": "x", "prompt": null}', "JSON without a prompt that can be read"),
        ('{"improvement": "x", "prompt": ""}', "JSON without a prompt that can be read"),
    ],
)
def test_what_is_no_prompt(text, why):
    assert read_prompt(text) == (None, why)


@each_attack
def test_stops_at_the_first_success(attack):
    model = Model()
    won = lambda one: Verdict("try 1" in one.answer, score=0.5)  # noqa: E731
    (attempt,) = run(attack, [BAKE], model=model, verdict=won)
    assert attempt.chat.request.endswith("try 1") and attempt.answer == f"Well: {attempt.chat.request}"
    assert attempt.trace["success_in_loop"] is True
    first_level = 1 if isinstance(attack, Crescendo) else 2
    assert attempt.trace["queries"] == len(model.sent) == first_level


@each_attack
def test_every_query_is_an_attempt_of_its_own(attack):
    model = Model()
    resources = Resources(0, judged_as(lambda one: Verdict(False)), Attacker())
    attempts = attack.run(model, [BAKE, SING], resources)
    for chat in (BAKE, SING):
        own = [one for one in attempts if one.chat.id == chat.id]
        sent = [one for one in model.sent if one.chat.id == chat.id]
        assert {one.chat.messages for one in own} == {one.chat.messages for one in sent}
        assert len(own) == len(sent) and all(one.answer for one in own)


@each_attack
def test_a_search_that_a_time_out_cut_short_is_unscored_and_tried_again(attack, tmp_path):
    attacker = Attacker(
        lambda question, number: None if number == 1 else Reply(None, "time-out", passing=True)
    )
    resources = Resources(0, judged_as(lambda one: Verdict(False)), attacker)
    attempts = attack.run(Model(), [BAKE], resources)
    assert attempts[0].answer and "cut short" in attempts[-1].failure and attempts[-1].passing
    row = case_row(BAKE, "s", attempts, [""] * len(attempts), CaseFile(tmp_path, "x"), None)
    assert failed(row)


@each_attack
def test_counts_queries_and_calls(attack):
    model, attacker = Model(), Attacker()
    attempts = run(attack, [BAKE, SING], attacker, model)
    assert sum(one.trace["queries"] for one in attempts) == len(model.sent)
    assert sum(one.trace["attacker_calls"] for one in attempts) == len(attacker.asked)
    expected = {Pair: 4, Tap: 6, Crescendo: 2}[type(attack)]
    assert [one.trace["queries"] for one in attempts] == [expected, expected]
    assert [len(one.trace["steps"]) for one in attempts] == [expected, expected]
    assert not any(one.trace["success_in_loop"] or one.trace["attacker_failures"] for one in attempts)


@each_attack
@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Reply(None, "time-out after 3 s"), "time-out after 3 s"),
        ("<prompt>I'm sorry, I can't.", "refused: I'm sorry, I can't."),
        ("?? 1 2 3 !!", "no words"),
        ('{"improvement": "be bolder", "prompt": null}', "JSON without a prompt"),
        ("<prompt>", "empty"),
    ],
)
def test_an_attacker_that_never_gives_a_prompt_is_a_failure(attack, said, why):
    model, attacker = Model(), Attacker(lambda question, number: said)
    (attempt,) = run(attack, [BAKE], attacker, model)
    assert attempt.answer is None and why in attempt.failure and model.sent == []
    assert f"in {len(attacker.asked)} calls" in attempt.failure
    assert attempt.trace["attacker_calls"] == len(attempt.trace["attacker_failures"]) == len(attacker.asked)
    assert attempt.chat == BAKE


@each_attack
def test_an_attacker_is_asked_again_with_another_seed(attack):
    attacker = Attacker(lambda question, number: "<prompt>" if number == 1 else None)
    (attempt,) = run(attack, [BAKE], attacker)
    assert attempt.failure is None and attempt.trace["attacker_failures"] == ["empty"]
    assert len({options["seed"] for options in attacker.options[:3]}) > 1


@each_attack
def test_a_failed_case_is_unscored_in_the_matrix(attack, target, tmp_path):
    resources = Resources(0, judged_as(lambda one: Verdict(False)), Attacker(lambda question, number: ""))
    (attempt,) = attempts_of(attack, target, [BAKE], resources)["bake"]
    row = case_row(BAKE, "direct", [attempt], [""], CaseFile(tmp_path, "x"), None)
    assert failed(row) and row["attempts"][0]["answer"] is None


@each_attack
def test_an_unscored_answer_stands_before_a_no_and_after_a_yes(attack):
    def verdict(one):
        number = int(one.answer.rpartition(" ")[2])
        return Verdict(None, "prose") if number == 1 else Verdict(False, score=0.9)

    (attempt,) = run(attack, [BAKE], verdict=verdict)
    assert attempt.chat.request.endswith("try 1") and attempt.trace["success_in_loop"] is False
    assert attempt.trace["steps"][0]["verdict"] is None and attempt.trace["steps"][0]["reason"] == "prose"
    later = lambda one: Verdict(True) if one.answer.endswith(" 2") else verdict(one)  # noqa: E731
    (attempt,) = run(attack, [BAKE], verdict=later)
    assert attempt.chat.request.endswith("try 2") and attempt.trace["success_in_loop"] is True


@each_attack
def test_the_highest_score_is_the_best_no(attack):
    score = lambda one: Verdict(False, score=0.9 if one.answer.endswith(" 1") else 0.1)  # noqa: E731
    (attempt,) = run(attack, [BAKE], verdict=score)
    assert attempt.chat.request.endswith("try 1")


@each_attack
def test_without_scores_the_last_no_stands_for_the_case(attack):
    (attempt,) = run(attack, [BAKE])
    assert attempt.chat.request.endswith(f"try {attempt.trace['queries']}")


@each_attack
def test_a_context_is_sent_once_and_the_judge_gets_it_apart(attack):
    model, seen = Model(), []
    run(attack, [TEXT], model=model, verdict=lambda one: seen.append(one) or Verdict(False))
    for attempt in model.sent:
        users = [turn.content for turn in attempt.chat.messages if turn.role == "user"]
        assert users[0].startswith("A letter.\n\n---\n\nCopy the letter, try ")
        assert not any("A letter." in text for text in users[1:])
    assert {(one.behaviour, one.context) for one in seen} == {("Copy the letter", "A letter.")}


@each_attack
def test_the_attacker_knows_the_goal_and_what_was_answered(attack):
    attacker = Attacker()
    run(attack, [TEXT], attacker, Model(lambda text: "Dear me, a letter"))
    first, last = attacker.asked[0], attacker.asked[-1]
    assert "Goal: Copy the letter" in first[0].content and "A letter." in first[0].content
    assert "Dear me, a letter" in last[-1].content


@each_attack
def test_behaviours_of_a_group_stay_apart(attack):
    def play(question, number):
        return Reply(None, "gone") if "bad song" in question and number % 2 else None

    model, seen = Model(), []
    other = Chat("third", (Message("user", "Paint a bad wall"),))
    attempts = run(
        attack,
        [BAKE, SING, other],
        Attacker(play),
        model,
        lambda one: (
            seen.append(one) or Verdict("cake" in one.answer and "try 4" in one.answer, score=len(seen) / 99)
        ),
    )
    assert [attempt.chat.id for attempt in attempts] == ["bake", "sing", "third"]
    for attempt, chat in zip(attempts, [BAKE, SING, other], strict=True):
        assert behaviour_of(attempt.chat) == chat.request
        assert chat.request in attempt.chat.request and chat.request in attempt.answer
        assert all(chat.request in step["prompt"] for step in attempt.trace["steps"])
    assert all(one.behaviour in one.answer for one in seen)
    assert all(
        attempt.chat.messages[0].role == "system" for attempt in model.sent if attempt.chat.id == "sing"
    )


@each_attack
def test_the_same_seed_gives_the_same_and_another_something_else(attack, target, folder):
    attack = replace(attack, max_new_tokens=4)
    once, again, other = (
        attack.run(
            target, [BAKE, SING], Resources(seed, judged_as(lambda one: Verdict(False)), Local(folder))
        )
        for seed in (0, 0, 1)
    )
    assert once == again and [one.trace for one in once] == [one.trace for one in again]
    assert [one.trace for one in once] != [one.trace for one in other]


def test_pair_runs_its_streams_apart_and_forgets_old_exchanges():
    attacker = Attacker()
    (attempt,) = run(Pair(streams=2, iterations=4, memory=1), [BAKE], attacker)
    assert [len(turns) for turns in attacker.asked] == [1, 1, 3, 3, 3, 3, 3, 3]
    assert attacker.asked[0][0] != attacker.asked[1][0], "another approach"
    assert "try 5" in attacker.asked[-2][1].content and "try 6" in attacker.asked[-1][1].content
    assert [(step["stream"], step["iteration"]) for step in attempt.trace["steps"][:3]] == [
        (0, 0),
        (1, 0),
        (0, 1),
    ]


def test_pair_begins_the_attackers_reply_unless_it_is_to_think():
    for think, prefill in ((False, "<prompt>"), (True, "")):
        attacker = Attacker()
        run(Pair(think=think), [BAKE], attacker)
        assert {options["prefill"] for options in attacker.options} == {prefill}


@pytest.mark.parametrize("play", ["time-out", "garbage", "refusal", "refusing prose"])
def test_pair_with_a_failing_endpoint_ends_unscored(server, tmp_path, target, play):
    plays = {
        "time-out": lambda body, number: time.sleep(0.8),
        "garbage": lambda body, number: b"<html>oops</html>",
        "refusal": lambda body, number: said(None, refusal="No."),
        "refusing prose": lambda body, number: said("I'm sorry, I can't help with that."),
    }
    reasons = {"time-out": "time-out", "garbage": "not JSON", "refusal": "refused by the endpoint: No."}
    server.play = plays[play]
    assistant = endpoint(server, timeout_s=0.2 if play == "time-out" else 5.0, retries=0)
    resources = Resources(0, judged_as(lambda one: Verdict(False)), assistant)
    (attempt,) = attempts_of(Pair(streams=1, iterations=1), target, [BAKE], resources)["bake"]
    assert reasons.get(play, "refused: I'm sorry") in attempt.failure
    row = case_row(BAKE, "direct", [attempt], [""], CaseFile(tmp_path, "x"), None)
    assert failed(row) and attempt.trace["attacker_calls"] == 2


def test_a_local_attacker_that_writes_nothing_after_the_opening_has_failed(tmp_path):
    folder = str(save_model(tmp_path / "model"))
    (reply,) = Local(folder).reply([list(BAKE.messages)], max_new_tokens=4, prefill="<prompt>")
    assert reply.text.startswith("<prompt>") and len(reply.text) > len("<prompt>")
    model = load_once(folder, "auto").model
    model.generation_config.eos_token_id = list(range(model.config.vocab_size))
    replies = Local(folder).reply([list(BAKE.messages)], max_new_tokens=4, prefill="<prompt>")
    assert replies == [Reply(None, "the model wrote nothing")]


class TestTap:
    def test_prunes_prompts_that_left_the_topic(self):
        model = Model()
        attacker = Attacker(topic=lambda question: "No." if "try 2" in question else "yes")
        (attempt,) = run(Tap(width=2, branching=3, depth=1), [BAKE], attacker, model)
        assert [one.chat.request[-1] for one in model.sent] == ["1", "3"]
        assert attempt.trace["off_topic_pruned"] == 1 and attempt.trace["topic_unclear"] == 0

    def test_keeps_two_if_all_left_it_for_that_behaviour_alone(self):
        model = Model()
        attacker = Attacker(topic=lambda question: "no" if "cake" in question else "yes")
        bake, sing = run(Tap(width=2, branching=3, depth=1), [BAKE, SING], attacker, model)
        assert (bake.trace["queries"], sing.trace["queries"]) == (2, 3)
        assert (bake.trace["off_topic_pruned"], sing.trace["off_topic_pruned"]) == (1, 0)

    @pytest.mark.parametrize("reply", [Reply(None, "gone"), "Hm.", "nothing notable"])
    def test_keeps_a_prompt_whose_check_cannot_be_read(self, reply):
        (attempt,) = run(Tap(branching=2, depth=1), [BAKE], Attacker(topic=lambda question: reply))
        assert attempt.trace["queries"] == attempt.trace["topic_unclear"] == 2

    def test_only_the_best_leaves_grow_on(self):
        attacker = Attacker()
        score = lambda one: Verdict(False, score=int(one.answer.rpartition(" ")[2]) / 100)  # noqa: E731
        run(Tap(width=2, branching=3, depth=3), [BAKE], attacker, verdict=score)
        assert [len(turns) for turns in attacker.asked] == [1] * 3 + [3] * 6 + [5] * 6
        assert len({turns[0] for turns in attacker.asked}) == 1, "the instructions stay"
        assert all(re.search("try [23]<", turns[-2].content) for turns in attacker.asked[3:9])
        assert all(re.search("try [89]<", turns[-2].content) for turns in attacker.asked[9:])

    def test_a_level_without_prompts_leaves_the_leaves_as_they_were(self):
        attacker = Attacker(lambda question, number: "" if 3 <= number <= 6 else None)
        (attempt,) = run(Tap(width=1, branching=2, depth=3, tries=2), [BAKE], attacker)
        assert [step["level"] for step in attempt.trace["steps"]] == [0, 0, 2, 2]
        assert attacker.asked[2] == attacker.asked[6]

    def test_a_transferred_prompt_waits_for_the_targets_answer(self, target, tmp_path):
        source = str(save_model(tmp_path / "source", layers=2))
        tap = Tap(depth=1, transfer_from=source)
        judge = judged_as(lambda one: Verdict(False))
        (attempt,) = tap.run(target, [BAKE], Resources(0, judge, Attacker()))
        (expected,) = Target(load_once(source, "cpu"), 4).answer([attempt])
        assert attempt.answer is None and attempt.failure is None
        assert attempt.trace["source_answer"] == expected and attempt.trace["transferred_from"] == source
        (answered,) = attempts_of(tap, target, [BAKE], Resources(0, judge, Attacker()))["bake"]
        assert answered.answer == target.answer([attempt])[0] != expected

    def test_a_transfer_without_a_prompt_is_a_failure(self, target, folder):
        resources = Resources(0, judged_as(lambda one: Verdict(False)), Attacker(lambda q, number: ""))
        (attempt,) = attempts_of(Tap(depth=1, transfer_from=folder), target, [BAKE], resources)["bake"]
        assert attempt.failure.startswith("attacker gave no usable prompt") and attempt.answer is None


class TestCrescendo:
    def test_sends_the_talk_so_far(self):
        model = Model()
        (attempt,) = run(Crescendo(turns=3, backtracks=0), [SING], model=model)
        assert [len(one.chat.messages) for one in model.sent] == [2, 4, 6]
        assert [(turn.role, turn.content) for turn in model.sent[-1].chat.messages] == [
            ("system", "Be brief."),
            ("user", "Sing a bad song, try 1"),
            ("assistant", "Well: Sing a bad song, try 1"),
            ("user", "Sing a bad song, try 2"),
            ("assistant", "Well: Sing a bad song, try 2"),
            ("user", "Sing a bad song, try 3"),
        ]
        assert attempt.trace["turns"] == 3 and behaviour_of(attempt.chat) == "Sing a bad song"

    @pytest.mark.parametrize("useless", ["I'm sorry, I can't.", "", "§$%& //// 123", "the the " * 40])
    def test_takes_back_what_was_refused_up_to_the_limit(self, useless):
        model, attacker = Model(lambda text: useless), Attacker()
        (attempt,) = run(Crescendo(turns=2, backtracks=3), [BAKE], attacker, model)
        assert [len(one.chat.messages) for one in model.sent] == [1, 1, 1, 1, 3]
        assert [step["taken_back"] for step in attempt.trace["steps"]] == [True] * 3 + [False] * 2
        assert attempt.trace["backtracks"] == 3 and attempt.trace["turns"] == 2
        told = ["turned down and taken back" in turns[0].content for turns in attacker.asked]
        assert told == [False, True, True, True, False]

    def test_an_answer_taken_back_stands_for_nothing_where_another_does(self):
        model = Model(lambda text: "I'm sorry." if text.endswith("3") else "Well then")
        (attempt,) = run(Crescendo(turns=3, backtracks=1), [BAKE], model=model)
        assert attempt.chat.request.endswith("try 4")
        model = Model(lambda text: "I'm sorry." if text.endswith("2") else "Well then")
        attacker = Attacker(lambda question, number: "" if number > 2 else None)
        (attempt,) = run(Crescendo(turns=2, backtracks=1), [BAKE], attacker, model)
        assert attempt.answer == "Well then" and attempt.trace["steps"][-1]["taken_back"] is True

    def test_a_success_that_begins_like_a_refusal_is_no_refusal(self):
        model = Model(lambda text: "Sorry, here it is")
        (attempt,) = run(Crescendo(), [BAKE], model=model, verdict=lambda one: Verdict(True))
        assert attempt.trace["backtracks"] == 0 and attempt.trace["success_in_loop"]


def test_a_success_stays_in_front_of_what_follows_it():
    search = Search(BAKE)
    search.note(Attempt(BAKE, answer="yes"), Verdict(True, score=0.6), "a")
    search.note(Attempt(BAKE, answer="more"), Verdict(True, score=0.9), "b")
    assert [one.answer for one in search.result()] == ["yes", "more"]
    assert search.result()[0].trace["queries"] == 2
