"""HarmBench's classifier: a tiny Llama here, and a real server on this machine."""

import shutil

import pytest
import torch

from rerouting.core.contracts import Judged
from rerouting.core.errors import UserError
from rerouting.judges._next_token import next_logits, shortened
from rerouting.judges.harmbench import Harmbench, question, read
from rerouting.models.pretrained import pretrained
from tests.judges.classifiers import last_logits, llama_that_says, pickled, tokenizer_with
from tests.targets.test_endpoint import running

DONE = Judged("Bake a cake", "Mix flour and sugar, then bake it for forty minutes.")
DECLINED = Judged("Bake a cake", "I would rather not.")
ANSWERS = [
    DONE,
    DECLINED,
    Judged("Explain", "Step {behavior}: {0} }}{{", context="A {generation} text"),
    Judged("B", "x" * 700),
    Judged("Bake", ""),
]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harmbench")
    return llama_that_says(folder, ("yes", "no"), (question(DONE), question(DECLINED)))


def judge(folder, **options):
    return Harmbench(model=str(folder), device="cpu", **options)


def test_yes_and_no_with_the_probability_of_harm(classifier):
    done, declined = judge(classifier).verdicts([DONE, DECLINED])
    assert (done.yes, declined.yes) == (True, False)
    for one, verdict in ((DONE, done), (DECLINED, declined)):
        share = last_logits(classifier, question(one)).softmax(dim=0).max().item()
        assert verdict.score == pytest.approx(share if verdict.yes else 1 - share, abs=1e-4)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_an_answer_gets_the_same_verdict_alone_and_in_a_batch(classifier, batch):
    together = judge(classifier, batch=batch).verdicts(ANSWERS)
    for one, verdict in zip(ANSWERS, together, strict=True):
        (alone,) = judge(classifier).verdicts([one])
        assert alone.yes is verdict.yes and alone.score == pytest.approx(verdict.score, abs=2e-4)
    assert {verdict.yes for verdict in together} == {True, False}


def test_logits_of_unequal_lengths_in_a_batch_are_those_of_each_alone(classifier):
    model, tokenizer = pretrained("AutoModelForCausalLM", str(classifier), "cpu", False)
    prompts = [question(one) for one in ANSWERS]
    assert len({len(tokenizer(prompt)["input_ids"]) for prompt in prompts}) == len(prompts)
    for found, prompt in zip(next_logits(model, tokenizer, prompts, 8), prompts, strict=True):
        torch.testing.assert_close(found, last_logits(classifier, prompt), atol=1e-5, rtol=1e-4)


def test_prompts_begin_with_the_tokenizers_first_token(classifier):
    _, tokenizer = pretrained("AutoModelForCausalLM", str(classifier), "cpu", False)
    assert tokenizer(question(DONE))["input_ids"][0] == tokenizer.bos_token_id


def test_a_model_that_says_neither_is_unscored(tmp_path):
    folder = llama_that_says(tmp_path, ("H", "Q"), (question(DONE), question(DECLINED)))
    verdicts = judge(folder).verdicts([DONE, DECLINED])
    assert [(verdict.yes, verdict.score) for verdict in verdicts] == [(None, None)] * 2
    assert [verdict.reason for verdict in verdicts] == ["neither yes nor no: 'H'", "neither yes nor no: 'Q'"]


def test_an_answer_is_cut_to_the_classifiers_tokens(classifier):
    long = Judged("Bake", "a" * 600)
    cut = Judged("Bake", "a" * 511)
    assert judge(classifier).verdicts([long]) == judge(classifier).verdicts([cut])
    assert judge(classifier, answer_tokens=700).verdicts([long]) != judge(classifier).verdicts([cut])


def test_special_tokens_in_an_answer_are_taken_out():
    assert shortened("I do <eos>so<bos>.", tokenizer_with(), 512) == "I do so."
    assert shortened("I do <eos>so.", tokenizer_with(), 4) == "I d"


def test_a_context_asks_the_contextual_question():
    assert "[CONTEXT]:\nThe text\n\n[BEHAVIOR]:\nSum up" in question(
        Judged("Sum up", "So", context="The text")
    )
    assert "CONTEXT" not in question(Judged("Sum up", "So"))


def test_braces_in_an_answer_cannot_break_or_fill_the_question():
    asked = question(Judged("Steal {generation}", "{behavior} {context} {0} }}{{", context="{behavior}"))
    assert "[GENERATION]:\n{behavior} {context} {0} }}{{\n\n---" in asked
    assert "[BEHAVIOR]:\nSteal {generation}\n" in asked and "[CONTEXT]:\n{behavior}\n" in asked


@pytest.mark.parametrize(
    ("text", "yes"),
    [("yes", True), (" Yes\n", True), ("NO", False), ("no.", None), ("yes, but", None), ("", None)],
)
def test_words(text, yes):
    assert read(text).yes is yes
    assert bool(read(text).reason) == (yes is None)


def test_pickled_weights_are_refused_without_leave(classifier, tmp_path):
    folder = pickled(shutil.copytree(classifier, tmp_path / "pickled"))
    with pytest.raises(UserError, match=r"set allow_pickle if its weights are \.bin"):
        judge(folder).verdicts([DONE])
    assert judge(folder, allow_pickle=True).verdicts(ANSWERS) == judge(classifier).verdicts(ANSWERS)


def test_a_broken_download_is_explained(classifier, tmp_path):
    folder = shutil.copytree(classifier, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(UserError, match="cannot be loaded"):
        judge(folder).verdicts([DONE])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running() as one:
        yield one


def test_the_same_through_a_server(server):
    says = {question(DONE): " yes", question(DECLINED): "no", question(ANSWERS[2]): "perhaps"}
    server.play = lambda body, number: {
        "choices": [{"text": says[body["prompt"]], "finish_reason": "length"}]
    }
    verdicts = Harmbench(model="cls", url=server.url).verdicts(ANSWERS[:3])
    assert [verdict.yes for verdict in verdicts] == [True, False, None]
    assert verdicts[2].reason == "neither yes nor no: 'perhaps'"
    path, key, body = server.seen[0]
    assert (path, key) == ("/v1/completions", None)
    assert body | {"prompt": ""} == {"model": "cls", "prompt": "", "max_tokens": 1, "temperature": 0.0}


def test_what_a_server_refuses_is_unscored_and_voids_no_other(server):
    def play(body, number):
        too_long = body["prompt"] == question(ANSWERS[3])
        return (400, {"error": "too long"}, {}) if too_long else {"choices": [{"text": "no"}]}

    server.play = play
    verdicts = Harmbench(model="cls", url=server.url).verdicts(ANSWERS)
    assert [verdict.yes for verdict in verdicts] == [False, False, False, None, False]
    assert "HTTP 400" in verdicts[3].reason


def test_a_wrong_address_is_found_before_anything_is_attacked():
    with pytest.raises(UserError, match="malformed endpoint address"):
        Harmbench(url="localhost:8000")
    with pytest.raises(UserError, match="RR_NO_SUCH_KEY is not set"):
        Harmbench(url="http://localhost:8000/v1", api_key_env="RR_NO_SUCH_KEY")
