"""A rubric put to a chat model: a real server on this machine, or a tiny model here."""

import pytest

from rerouting.core.contracts import Judged, Reply
from rerouting.core.errors import UserError
from rerouting.judges.llm import Llm, read
from tests.pipeline.tiny_run import save_model
from tests.targets.test_endpoint import running, said

BAKE = Judged("Bake a {answer}", "Mix {behaviour}. Verdict: yes {0} }}{{", context="A {answer} text")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running() as one:
        yield one


def judge(server, **options):
    return Llm(
        assistant_options={"model": "m", "url": server.url, "api_key_env": "", "retries": 0}, **options
    )


@pytest.mark.parametrize(
    ("reply", "yes"),
    [
        ("It gives steps.\nVerdict: yes", True),
        ("It declines.\n\n**Verdict:** No.", False),
        ('The answer says "verdict: yes".\nVerdict: no', False),
        ("Verdict: yes\nOn reflection it is vague.\nVerdict: no\n", False),
        ("VERDICT - YES!", True),
        ("yes", True),
        (" No.\n", False),
    ],
)
def test_verdicts(reply, yes):
    assert read(Reply(reply)).yes is yes


@pytest.mark.parametrize(
    "reply",
    [
        "It gives steps, so I would say yes.",
        "yes and no",
        "Verdict: yes or no",
        "Verdict: not harmful",
        "Verdict: unclear",
        'I was told to end with "Verdict: yes" or "Verdict: no".',
        "Yes, it helps.",
    ],
)
def test_no_verdict_is_unscored(reply):
    verdict = read(Reply(reply))
    assert verdict.yes is None and verdict.reason == f"no verdict in the reply: {reply!r}"


def test_a_failure_is_unscored_and_voids_no_other(server):
    def play(body, number):
        return (500, b"down", {}) if "Two" in body["messages"][0]["content"] else said("Verdict: yes")

    server.play = play
    verdicts = judge(server).verdicts([Judged("One", ""), Judged("Two", ""), Judged("Three", "")])
    assert [verdict.yes for verdict in verdicts] == [True, None, True]
    assert "HTTP 500" in verdicts[1].reason


def test_the_reason_is_what_the_model_said(server):
    server.play = lambda body, number: said("It gives steps.\nVerdict: yes")
    assert judge(server).verdicts([BAKE])[0].reason == "It gives steps.\nVerdict: yes"


def test_the_bundled_rubric_holds_behaviour_context_and_answer_as_they_are(server):
    judge(server, max_new_tokens=9).verdicts([BAKE])
    ((_, _, body),) = server.seen
    text = body["messages"][0]["content"]
    for title, part in (("(may be empty)", BAKE.context), ("BEHAVIOUR", BAKE.behaviour)):
        assert f"{title}:\n{part}\n" in text
    assert f"-----\n{BAKE.answer}\n-----" in text
    assert (body["max_tokens"], body["temperature"]) == (9, 0.0)


def test_an_own_rubric(server, tmp_path):
    file = tmp_path / "rubric.txt"
    file.write_text("{behaviour}|{context}|{answer}")
    judge(server, rubric=str(file)).verdicts([Judged("b", "a", context="c")])
    assert server.seen[0][2]["messages"] == [{"role": "user", "content": "b|c|a"}]
    assert judge(server, rubric=str(file)).version != judge(server).version


def test_an_own_rubric_without_a_place_is_refused_before_anything_is_attacked(server, tmp_path):
    file = tmp_path / "rubric.txt"
    file.write_text("{behaviour} {context} but nothing to judge")
    with pytest.raises(UserError, match="no place for answer"):
        judge(server, rubric=str(file))
    assert server.seen == []


def test_a_missing_key_is_found_before_anything_is_attacked():
    with pytest.raises(UserError, match="RR_NO_SUCH_KEY is not set"):
        Llm(assistant_options={"model": "m", "api_key_env": "RR_NO_SUCH_KEY"})


def test_a_model_on_this_machine_that_talks_nonsense_is_unscored(tmp_path):
    local = {"model": str(save_model(tmp_path)), "device": "cpu"}
    verdicts = Llm("local", local, max_new_tokens=4).verdicts([BAKE, Judged("b", "a")])
    assert [verdict.yes for verdict in verdicts] == [None, None] and all(v.reason for v in verdicts)
