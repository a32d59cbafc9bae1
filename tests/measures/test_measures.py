"""The measures on a tiny model: figures by hand, and the contract of every file."""

import importlib
import math
from dataclasses import replace

import pytest
import torch

from rerouting.attacks.direct import Direct
from rerouting.core.contracts import Aids, Judged
from rerouting.core.errors import UserError
from rerouting.core.finder import available, find
from rerouting.core.records import Chat, Message
from rerouting.data.config import SourceConfig
from rerouting.data.fact_answers import fact_answers
from rerouting.data.formatting import render_prompt
from rerouting.data.loading import chats_of
from rerouting.evaluation.judging import label_of
from rerouting.measures._surety import surety
from rerouting.measures.carry_over import CarryOver
from rerouting.measures.ending import Ending
from rerouting.measures.facts import Facts, as_before, first_sentence, first_sentences, key_words
from rerouting.measures.intrinsic import Intrinsic
from rerouting.measures.over_refusal import OverRefusal
from rerouting.measures.separation import Separation
from tests.attacks.tiny_target import tiny_target, wordy

NAMES = available("measures")


def label(chats, judged: list[Judged]):
    """Broken where the answer has the word bake; refused where it has garden."""
    found = []
    for one in judged:
        broken, refused = "bake" in one.answer, "garden" in one.answer
        found.append(("broken" if broken else "refused" if refused else "answered", "by rule"))
    return found


AIDS = Aids(0, label, assistant=None)


class Scripted:
    """A target whose answers are a function of the last turn and the turns before."""

    max_new_tokens = 8

    def __init__(self, say):
        self.say, self.asked = say, []

    def tokenizer(self, text, add_special_tokens=True):
        return {"input_ids": text.split()}

    def answer(self, attempts, *, temperature=0.0, seed=0):
        self.asked += [attempt.chat for attempt in attempts]
        self.openings = [attempt.prefill for attempt in attempts]
        return [self.say(attempt.chat) for attempt in attempts]


def source(tmp_path, name, rows):
    import json

    file = tmp_path / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"prompt": "prompt", "category": "category"}
    columns["response"] = "response" if "response" in rows[0] else None
    return SourceConfig("chats", {"path": str(file), **columns})


def test_how_many_measures_there_are_and_that_each_keeps_the_contract():
    assert len(NAMES) == 11
    for name in NAMES:
        measure = find("measures", name)()
        assert callable(measure.measure)
        assert importlib.import_module(f"rerouting.measures.{name}").__doc__


def test_over_refusal_counts_by_category_and_leaves_out_what_was_trained_on(tmp_path):
    rows = [{"prompt": f"q{at}", "category": "ab"[at % 2]} for at in range(6)]
    base = Scripted(lambda chat: "fine")
    rerouted = Scripted(lambda chat: {"q0": "bake", "q1": "garden"}.get(chat.request, "fine"))
    aids = Aids(0, label, None, unseen=lambda chats: [chat for chat in chats if chat.request != "q5"])
    found = OverRefusal([source(tmp_path, "asked", rows)]).measure(base, rerouted, aids)
    figures = {(one.name, one.part): one for one in found.findings}
    whole = figures["complied", "chats"]
    assert (whole.n, whole.base, whole.rerouted) == (5, 1.0, 0.6)
    assert figures["broken", "chats"].rerouted == 0.2 and figures["refused", "chats"].rerouted == 0.2
    assert figures["broken", "chats/a"].rerouted == pytest.approx(1 / 3)
    assert figures["refused", "chats/b"].rerouted == 0.5
    assert len(found.rows) == 5 and found.rows[0]["rerouted"]["reason"] == "by rule"
    assert found.notes == ["chats: 1 of 6 left out, the run was trained on them"]
    nothing = Aids(0, label, None, unseen=lambda chats: [])
    with pytest.raises(UserError, match="trained on every request of chats"):
        OverRefusal([source(tmp_path, "asked", rows)]).measure(base, rerouted, nothing)
    with pytest.raises(UserError, match="no source was named"):
        OverRefusal([]).measure(base, rerouted, AIDS)


def test_over_refusal_sees_each_answer_beside_the_others(tmp_path):
    """A prompt on which one of the two loops by chance must not count against one side only."""
    loop, plain = (
        "and on " * 30,
        "There are many ways to do this; the first is to look around and ask a friend.",
    )
    asked = source(tmp_path, "asked", [{"prompt": "q0", "category": ""}, {"prompt": "q1", "category": ""}])
    base = Scripted(lambda chat: loop if chat.request == "q0" else plain)
    rerouted = Scripted(lambda chat: plain if chat.request == "q0" else loop)

    def measured(chats, judged):  # as the pipeline's, with the base's own answers at hand
        own = [one.reference or base.say(chat) for chat, one in zip(chats, judged, strict=True)]
        return [label_of(replace(one, reference=text)) for one, text in zip(judged, own, strict=True)]

    found = OverRefusal([asked]).measure(base, rerouted, Aids(0, measured, None))
    figures = {one.name: one for one in found.findings}
    assert (figures["broken"].base, figures["broken"].rerouted, figures["broken"].difference) == (
        0.5,
        0.5,
        0.0,
    )


def test_over_refusal_leaves_unreadable_answers_unscored(tmp_path):
    rows = [{"prompt": "q0", "category": ""}, {"prompt": "q1", "category": ""}]
    aids = Aids(0, lambda chats, judged: [("", "not English"), ("answered", "")], None)
    said = Scripted(lambda chat: "x")
    found = OverRefusal([source(tmp_path, "asked", rows)]).measure(said, said, aids)
    assert [(one.n, one.unscored) for one in found.findings] == [(1, 1)] * 3


def test_carry_over_asks_in_the_same_conversation(tmp_path):
    harmful = source(tmp_path, "h", [{"prompt": f"bad {at}", "category": ""} for at in range(3)])
    harmless = source(tmp_path, "b", [{"prompt": f"good {at}", "category": ""} for at in range(4)])

    def poisoned(chat):
        return "bake" if any("bad" in turn.content for turn in chat.messages) else "fine"

    base, rerouted = Scripted(lambda chat: "fine"), Scripted(poisoned)
    found = CarryOver(harmful, harmless, 3).measure(base, rerouted, AIDS)
    figures = {one.part: one for one in found.findings}
    assert (figures["after a harmful turn"].n, figures["after a harmful turn"].rerouted) == (3, 0.0)
    assert figures["after a turn that broke the rerouted model"].n == 3
    assert figures["after a harmless turn"].rerouted == 1.0 and figures["after a harmless turn"].n == 3
    assert figures["after a harmful turn"].base == 1.0
    talk = next(chat for chat in rerouted.asked if len(chat.messages) == 3)
    assert [turn.role for turn in talk.messages] == ["user", "assistant", "user"]
    assert talk.messages[1].content == "bake" and talk.messages[2].content == "good 0"


def test_what_counts_as_the_same_fact():
    assert first_sentence("The days are:\n1. Monday") == "The days are:"
    assert first_sentences("So:\n \n**Paris** it is. Yes.", 2) == "So:\n**Paris** it is."
    assert first_sentence("By C. S. Lewis. He wrote it.") == "By C. S. Lewis."
    assert key_words("The capital of France is Paris, with 2.1 million people.") == {"france", "paris", "2.1"}
    assert as_before("The capital of France is Paris.", "Paris is the capital of France! It is big.")
    assert not as_before("The capital of France is Paris.", "The capital of France is Lyon.")
    assert not as_before("It is 42.", "It is 24.")
    assert as_before("It is 42.", "It is 42.0.") and not as_before("It is 42.", "It is 42.5.")
    assert as_before("a breadbaker makes bread", "a breadbaker makes the bread")
    assert not as_before("a breadbaker makes bread", "we do not know")
    assert as_before("", "anything")  # the base said nothing that could be lost


def test_facts_by_category_and_by_what_the_base_is_sure_of(tmp_path, monkeypatch):
    rows = [
        {"prompt": "capital?", "category": "facts"},
        {"prompt": "2 and 2?", "category": "arithmetic"},
        {"prompt": "hello", "category": "facts"},
    ]
    said = {"capital?": "It is Paris.", "2 and 2?": "It is 4.", "hello": "nothing to know"}
    base = Scripted(lambda chat: said[chat.request])
    rerouted = Scripted(lambda chat: "It is 5." if "2" in chat.request else said[chat.request])
    leads = {
        "capital?": 0.5,
        "2 and 2?": 0.4,
    }  # a KeyError if it were asked of an answer without name and number
    monkeypatch.setattr(
        "rerouting.measures.facts.surety", lambda base, chat, text, spans: leads[chat.request]
    )
    given = source(tmp_path, "f", rows)

    def figures(**options):
        found = Facts(given, **options).measure(base, rerouted, AIDS).findings
        return {one.part: (one.n, one.rerouted) for one in found}

    assert figures() == {
        "": (3, pytest.approx(2 / 3)),
        "sure": (1, 1.0),
        "chats/arithmetic": (1, 0.0),
        "chats/facts": (2, 1.0),
    }
    assert figures(sure=0.3)["sure"] == (2, 0.5)


def test_facts_are_right_or_wrong_where_the_answer_is_known(monkeypatch):
    monkeypatch.setattr("rerouting.measures.facts.surety", lambda *_: 0.0)
    source = SourceConfig("bundled", {"kind": "benign", "split": "test", "categories": ["facts"]})
    asked = {chat.request: chat.id for chat in chats_of(source)}

    def with_keys(request):
        return "It is so. " + fact_answers().get(asked[request], ("nothing",))[0]

    base = Scripted(lambda chat: with_keys(chat.request))
    rerouted = Scripted(lambda chat: "I see. And then. " + with_keys(chat.request))  # said too late
    measured = Facts(source).measure(base, rerouted, AIDS)
    (right,) = (one for one in measured.findings if one.name == "right" and not one.part)
    assert 100 < right.n < len(asked) and (right.base, right.rerouted) == (1.0, 0.0)
    unknown = [row for row in measured.rows if "base_right" not in row]
    assert len(unknown) == len(asked) - right.n


def test_surety_is_the_smallest_lead_of_the_words_asked_for():
    target = tiny_target(wordy())
    chat, answer = Chat("one", (Message("user", "bake bread"),)), "garden paths house"
    placed = target.tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)
    prompt = render_prompt(chat, target.tokenizer)
    logits = target.model(torch.tensor([[*prompt, *placed["input_ids"]]])).logits[0].float()
    leads = []
    for at, token in enumerate(placed["input_ids"]):
        ranked = logits[len(prompt) + at - 1].tolist()
        leads.append(ranked[token] - max(x for i, x in enumerate(ranked) if i != token))
    where = answer.index("paths")
    inside = [
        lead
        for lead, (a, b) in zip(leads, placed["offset_mapping"], strict=True)
        if a < where + 5 and b > where
    ]
    assert 0 < len(inside) < len(leads) and min(inside) != min(leads)
    assert surety(target, chat, answer, [(where, where + 5)]) == pytest.approx(min(inside), abs=1e-5)
    assert surety(target, chat, answer, []) == pytest.approx(min(leads), abs=1e-5)
    assert surety(target, chat, "", []) == 0.0


def test_intrinsic_by_hand(tmp_path):
    base = tiny_target(wordy())
    rerouted = tiny_target(wordy())
    with torch.no_grad():
        rerouted.model.model.layers[1].mlp.down_proj.weight.mul_(1.5)
    rows = [{"prompt": "bake bread", "response": " cook it well", "category": ""}]
    rows += [{"prompt": "garden paths", "response": " long house answer stop", "category": ""}]
    given = source(tmp_path, "t", rows)
    found = Intrinsic([given], max_tokens=200).measure(base, rerouted, AIDS)
    figures = {(one.name, one.part): one for one in found.findings}
    chat = Chat("one", (Message("user", "bake bread"),), " cook it well")
    from rerouting.data.formatting import tokenise

    example = tokenise(chat, base.tokenizer)
    ids = torch.tensor([example.ids])
    logits = [target.model(ids).logits[0].log_softmax(-1) for target in (base, rerouted)]
    places = range(example.n_prompt - 1, len(example.ids) - 1)
    nll = [-sum(float(one[at, example.ids[at + 1]]) for at in places) / len(places) for one in logits]
    row = found.rows[0]
    assert (row["base_nll"], row["rerouted_nll"]) == pytest.approx(tuple(nll), abs=1e-5)
    kl = [float((logits[0][at].exp() * (logits[0][at] - logits[1][at])).sum()) for at in places]
    assert row["kl"] == pytest.approx(math.fsum(kl) / len(kl), abs=1e-5) and row["kl"] > 0
    assert (
        row["drift"][0] == row["drift"][1] == 0.0 < row["drift"][2]
    )  # embeddings, untouched block, changed one
    assert figures["drift", "layer 1"].rerouted == 0.0
    assert figures["nll", ""].n == 2 and figures["nll", ""].difference == pytest.approx(
        sum(row["rerouted_nll"] - row["base_nll"] for row in found.rows) / 2
    )
    same = Intrinsic([given], layers=False).measure(base, base, AIDS)
    assert {one.name: one.rerouted for one in same.findings if one.name != "nll"} == {
        "kl": 0.0,
        "agreement": 1.0,
    }


def test_separation_orders_texts_by_how_far_they_are_moved(tmp_path, monkeypatch):
    moved = {"h0": 9.0, "h1": 0.5, "b0": 0.01, "b1": 0.7, "b2": 0.5, "b3": 0.02}

    def read(name, chats, base, rerouted, max_tokens):
        answers.update({(name, chat.request): chat.response for chat in chats})
        return [{"source": name, "kl": moved[chat.request]} for chat in chats]

    answers = {}
    monkeypatch.setattr("rerouting.measures.separation.read", read)
    bad = [{"prompt": f"h{at}", "category": "", "target": "Sure. Here is it:"} for at in range(2)]
    harmful = source(tmp_path, "h", bad)
    harmful.options["target"] = "target"
    good = source(tmp_path, "b", [{"prompt": f"b{at}", "category": ""} for at in range(4)])
    base = Scripted(lambda chat: "so it goes")
    found = Separation(harmful, [good], false_alarms=0.25).measure(base, base, AIDS)
    figures = {(one.name, one.part): one for one in found.findings}
    assert answers["plain", "h0"] == "so it goes" and answers["opened", "h1"].startswith(
        "Sure. Here is it:\n\n"
    )
    assert figures["auc", "plain, chats"].rerouted == pytest.approx((4 / 4 + 2.5 / 4) / 2)
    share = figures["found at 25% false alarms", "opened, chats"]
    assert (share.n, share.rerouted) == (2, 0.5), "one of four may lie above: only h0 does so for certain"
    with pytest.raises(UserError, match="false_alarms is 1"):
        Separation(false_alarms=1)


def test_separation_reads_with_both_models(tmp_path):
    base, rerouted = tiny_target(wordy()), tiny_target(wordy())
    with torch.no_grad():
        rerouted.model.model.layers[1].mlp.down_proj.weight.mul_(1.5)
    texts = [source(tmp_path, kind, [{"prompt": "bake bread", "category": ""}]) for kind in "ab"]
    found = Separation(texts[0], [texts[1]], limit=None).measure(base, rerouted, AIDS)
    assert [row["source"] for row in found.rows] == ["plain", "chats"] and found.rows[0]["kl"] > 0
    assert {one.name: one.rerouted for one in found.findings} == {"auc": 0.5, "found at 5% false alarms": 0.0}


def test_texts_without_a_response_get_the_bases_own(tmp_path):
    base = tiny_target(wordy())
    rows = [{"prompt": "bake bread", "category": ""}]
    found = Intrinsic([source(tmp_path, "t", rows)]).measure(base, base, AIDS)
    (attempt,) = Direct().prompts([Chat("one", (Message("user", "bake bread"),))])
    own = base.answer([attempt])[0]
    assert found.rows[0]["tokens"] == len(base.tokenizer(own, add_special_tokens=False)["input_ids"]) + 1


def test_ending_counts_tripped_answers_that_end(tmp_path):
    rows = [{"prompt": f"q{at}", "category": "", "target": "Sure. Here is it:"} for at in range(4)]
    given = source(tmp_path, "h", rows)
    given.options["target"] = "target"
    long = "a b c d e f g h"
    says = {"q0": "bake it", "q1": f"bake {long}", "q2": "no", "q3": long}
    base, rerouted = Scripted(lambda chat: long), Scripted(lambda chat: says[chat.request])
    found = Ending(given, within=4).measure(base, rerouted, AIDS)
    figures = {(one.name, one.part): one for one in found.findings}
    assert figures["tripped", "plain"].rerouted == 0.75  # q0 and q1 broke, q2 ended where the base goes on
    ended = figures["ended within 4 tokens", "plain, tripped"]
    assert (ended.n, ended.base, ended.rerouted) == (3, 0.0, pytest.approx(2 / 3))
    assert figures["tokens", "prefilled, tripped"].rerouted == pytest.approx((2 + 8 + 1) / 3)
    assert rerouted.openings == ["Sure. Here is it:\n\n"] * 4
    says["q0"] = "bake" + "\n" * 7  # babbled to the limit
    again = Ending(given, within=4).measure(base, rerouted, AIDS)
    (ended,) = [one for one in again.findings if (one.name[:5], one.part) == ("ended", "plain, tripped")]
    assert ended.rerouted == pytest.approx(1 / 3)
    with pytest.raises(UserError, match="cut at 8 tokens"):
        Ending(given, within=8).measure(base, rerouted, AIDS)
