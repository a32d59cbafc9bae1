"""multilingual with a scripted translator and model: what is sent, what the judge reads, and what fails alone."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from rerouting.attacks.multilingual import Multilingual
from rerouting.core.attempt import Attempt, behaviour_of, context_of
from rerouting.core.contracts import Reply, Resources
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message

BAKE = Chat("bake", (Message("user", "Bake a bad cake"),))
SING = Chat("sing", (Message("system", "Be brief."), Message("user", "Sing a bad song")))
TEXT = Chat(
    "text",
    (Message("user", "A letter.\n\n---\n\nCopy the letter"),),
    meta={"behaviour": "Copy the letter", "context": "A letter."},
)


@dataclass
class Tagger:
    """ "Bake" in Italian is "it:Bake"; `fails(text, source, target)` may say why a text has no translation."""

    fails: Any = lambda text, source, target: ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def translate(self, texts, source, target):
        self.asked += [(text, source, target) for text in texts]
        return [self._one(text, source, target) for text in texts]

    def _one(self, text, source, target):
        if why := self.fails(text, source, target):
            return Reply(None, why)
        return Reply(f"{target}:{text}" if source == "en" else text.replace(f"{source}:", ""))


@dataclass
class Model:
    """Answers in the language that it is asked in."""

    play: Any = "{} done".format
    sent: list[Attempt] = field(default_factory=list)

    def answer(self, attempts, **_):
        self.sent += attempts
        return [self.play(one.chat.request) for one in attempts]


def run(chats, matrix=None, model=None, languages=("it", "uk"), **options):
    resources = Resources(0, lambda judged: [], None, matrix or Tagger())
    return Multilingual(list(languages), **options).run(model or Model(), chats, resources)


def test_one_attempt_a_chat_and_language_translated_in_and_back():
    model = Model()
    attempts = run([BAKE, SING], model=model)
    assert [(one.chat.id, one.trace["part"]) for one in attempts] == [
        *[("bake", "it"), ("sing", "it"), ("bake", "uk"), ("sing", "uk")]
    ]
    assert [one.chat.request for one in model.sent] == [
        *["it:Bake a bad cake", "it:Sing a bad song", "uk:Bake a bad cake", "uk:Sing a bad song"]
    ]
    assert [one.answer for one in attempts] == ["Bake a bad cake done", "Sing a bad song done"] * 2
    assert attempts[2].trace == {
        "part": "uk",
        "request": "uk:Bake a bad cake",
        "untranslated_answer": "uk:Bake a bad cake done",
    }
    assert behaviour_of(attempts[2].chat) == "Bake a bad cake"
    assert attempts[3].chat.messages[0] == Message("system", "Be brief."), "earlier turns stay English"


def test_a_language_named_twice_is_asked_once():
    (attempt,) = run([BAKE], languages=("it", "it"))
    assert attempt.answer == "Bake a bad cake done"
    assert attempt.trace["untranslated_answer"] == "it:Bake a bad cake done"


def test_failed_requests_are_failures_with_their_reason_and_shift_no_other():
    model = Model()
    lost = {("it", True), ("uk", False)}  # Italian of the cake, Ukrainian of all else
    translator = Tagger(lambda text, source, target: "lost" if (target, "cake" in text) in lost else "")
    attempts = run([BAKE, SING, TEXT], translator, model)
    found = {(one.chat.id, one.trace["part"]): one for one in attempts}
    failed = [key for key, one in found.items() if one.failure]
    assert failed == [("bake", "it"), ("sing", "uk"), ("text", "uk")]
    assert found["bake", "it"].failure == "no translation to it: lost"
    assert found["bake", "it"].answer is None and found["bake", "it"].chat == BAKE
    assert len(model.sent) == 3
    assert found["sing", "it"].answer == "Sing a bad song done"
    assert found["text", "it"].answer.endswith("Copy the letter done")
    assert found["bake", "uk"].trace["untranslated_answer"] == "uk:Bake a bad cake done"


def test_nothing_is_asked_of_the_model_if_nothing_was_translated():
    model = Model()
    attempts = run([BAKE], Tagger(lambda *_: "lost"), model)
    assert len(attempts) == 2 and all(one.failure for one in attempts) and model.sent == []


def test_a_context_is_sent_translated_and_judged_in_english():
    plain, attempt = run([BAKE, TEXT], languages=["it"])
    assert attempt.chat.request == "it:A letter.\n\n---\n\nit:Copy the letter"
    assert context_of(attempt.chat) == "A letter." and behaviour_of(attempt.chat) == "Copy the letter"
    assert plain.chat.request == "it:Bake a bad cake"


def test_a_context_without_a_translation_stays_english_and_the_trace_says_so():
    lost = Tagger(lambda text, source, target: "too long" if text == "A letter." else "")
    (attempt,) = run([TEXT], lost, languages=["it"])
    assert attempt.chat.request == "A letter.\n\n---\n\nit:Copy the letter"
    assert attempt.trace["context_not_translated"] == "too long"
    assert attempt.failure is None


def test_an_answer_that_cannot_be_translated_back_stays_as_it_is_and_the_trace_says_so():
    lost = Tagger(lambda text, source, target: "time-out" if target == "en" and "cake" in text else "")
    bake, sing = run([BAKE, SING], lost, languages=["it"])
    assert bake.answer == "it:Bake a bad cake done" and bake.failure is None
    assert bake.trace["answer_language"] == "it" and bake.trace["why"] == "time-out"
    assert sing.answer == "Sing a bad song done" and "answer_language" not in sing.trace


def test_an_english_answer_to_a_foreign_request_needs_no_translation():
    english = "You can bake it in the oven with some of the flour and all of the sugar that you have."
    translator = Tagger()
    (attempt,) = run([BAKE], translator, Model(lambda text: english), languages=["it"])
    assert attempt.answer == english and "answer_language" not in attempt.trace
    assert not [one for one in translator.asked if one[2] == "en"]


@pytest.mark.parametrize("silence", ["", " \n"])
def test_an_empty_answer_is_not_translated(silence):
    translator = Tagger()
    bake, sing = run(
        [BAKE, SING], translator, Model(lambda text: silence if "cake" in text else text), languages=["it"]
    )
    assert bake.answer == silence and bake.failure is None and "answer_language" not in bake.trace
    assert sing.answer == "Sing a bad song"
    assert [text for text, _, target in translator.asked if target == "en"] == ["it:Sing a bad song"]


def test_its_own_translator_goes_before_the_matrixs(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"text": "Bake a bad cake", "language": "it", "translation": "Cuoci"}))
    matrix = Tagger()
    model = Model()
    (attempt,) = run(
        [BAKE], matrix, model, ["it"], translator="files", translator_options={"path": str(file)}
    )
    assert model.sent[0].chat.request == "Cuoci" and matrix.asked == []
    assert attempt.answer == "Cuoci done" and "from English only" in attempt.trace["why"]


def test_a_translator_that_does_not_exist():
    with pytest.raises(UserError, match="oracle"):
        Multilingual(translator="oracle").run(Model(), [BAKE], Resources(0, lambda judged: [], None))
