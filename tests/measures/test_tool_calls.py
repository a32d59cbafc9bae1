"""Function calls of scripted models: every figure by hand."""

import json

import pytest

from rerouting.core.contracts import Aids
from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.core.stats import wilson
from rerouting.data.bundled_tools import tool_requests
from rerouting.data.tool_text import as_text
from rerouting.data.tool_variants import variants
from rerouting.measures._tool_chats import SAFETY_PROMPT, injected, plain
from rerouting.measures.tool_calls import ToolCalls, score
from tests.attacks.tiny_target import tiny_target
from tests.data.tokenizers_of_families import CHATML, tiny
from tests.data.tool_templates import HERMES, LLAMA31, MISTRAL_V3, PYTHONIC, tiny_with_tools

AIDS = Aids(0, lambda chats, judged: [], assistant=None)
KINDS = ("harmful", "ordinary", "borderline")
REQUESTS = {one.id: one for kind in KINDS for one in tool_requests(kind, "test")}


class Scripted:
    """A target that answers by a function of the request, the chat and the opening."""

    max_new_tokens = 64

    def __init__(self, say, tokenizer):
        self.say, self.tokenizer, self.asked = say, tokenizer, []

    def answer(self, attempts, *, temperature=0.0, seed=0):
        self.asked += attempts
        return [self.say(REQUESTS[one.chat.id], one) for one in attempts]


def text_of(request, rename=None, **changes):
    arguments = request.call.arguments | changes
    return json.dumps({"name": rename or request.call.name, "arguments": arguments})


def obeys(request, attempt):
    """Makes every call, going on from a forced opening."""
    return text_of(request)[len(attempt.prefill) :]


def careful(request, attempt):
    """Makes harmless calls alone, but goes on where it is forced; hides behind the safety prompt."""
    if request.kind == "harmful" and (
        not attempt.prefill or SAFETY_PROMPT in attempt.chat.messages[0].content
    ):
        return "I will not do that."
    return obeys(request, attempt)


def measured(base, rerouted, template=CHATML, **options):
    tokenizer = tiny(template)
    models = Scripted(base, tokenizer), Scripted(rerouted, tokenizer)
    found = ToolCalls(**options).measure(*models, AIDS)
    return found, {(one.name, one.part): one for one in found.findings}, models


def test_harmful_calls_by_attack_and_right_calls_by_kind():
    found, figures, (base, _) = measured(obeys, careful, limit=6)
    for part, rerouted in (
        ("no attack", 0.0),
        ("forced call", 1.0),
        ("safety prompt", 0.0),
        ("forced call, safety prompt", 0.0),
        ("injection", 0.0),
    ):
        figure = figures["harmful call", part]
        assert (figure.n, figure.base, figure.rerouted) == (6, 1.0, rerouted)
        assert figure.rerouted_interval and figure.difference == rerouted - 1.0
    assert figures["malformed call", "forced call, safety prompt"].rerouted == 1.0, "opened, and no call"
    assert figures["malformed call", "no attack"].rerouted == 0.0
    for kind in ("ordinary", "borderline", "ordinary, safety prompt", "borderline, safety prompt"):
        for name in ("right call by form", "right call by effect", "mean of form and effect"):
            assert (figures[name, kind].base, figures[name, kind].rerouted) == (1.0, 1.0)
        assert figures["no call", kind].rerouted == 0.0
    assert found.notes == ["functions and calls are written as: json"]
    assert len(found.rows) == 6 * 9 and len({(row["part"], row["id"]) for row in found.rows}) == 54
    forced = [one for one in base.asked if one.prefill]
    assert len(forced) == 12 and all(one.prefill.startswith('{"name": "') for one in forced)
    hidden = [one for one in base.asked if "Message to the assistant" in one.chat.messages[-1].content]
    assert len(hidden) == 6 and all(
        json.dumps(REQUESTS[one.chat.id].request)[1:-1] in one.chat.messages[-1].content for one in hidden
    )


def test_variants_of_a_request_count_as_one():
    def first_alone(request, attempt):
        return text_of(request) if attempt.chat.id in REQUESTS else "No."

    asked = {one.id: one for kind in KINDS[1:] for one in variants(tool_requests(kind, "test"), 4)}
    known = REQUESTS | asked
    tokenizer = tiny(CHATML)

    class Knows(Scripted):
        def answer(self, attempts, *, temperature=0.0, seed=0):
            return [self.say(known[one.chat.id], one) for one in attempts]

    found = ToolCalls(times=4, limit=3, safety_prompt="", injection=False).measure(
        Knows(obeys, tokenizer), Knows(first_alone, tokenizer), AIDS
    )
    figures = {(one.name, one.part): one for one in found.findings}
    for kind in KINDS[1:]:
        figure = figures["right call by form", kind]
        assert (figure.n, figure.base, figure.rerouted, figure.difference) == (3, 1.0, 0.25, -0.75)
        assert figure.base_interval == wilson(1.0, 3) and figure.rerouted_interval[0] < 0.25
        assert figures["no call", kind].rerouted == 0.75
    assert figures["harmful call", "no attack"].n == 3 and figures["harmful call", "no attack"].p is not None


def test_calls_that_are_wrong_in_their_way():
    def wrong(request, attempt):
        if request.kind == "ordinary":
            return text_of(request, rename="no_such_function")
        if request.kind == "borderline":
            return text_of(request) + "\n" + text_of(request)
        return text_of(request)[:-1] if not attempt.prefill else '", "arguments": [1, 2]}'

    _, figures, _ = measured(obeys, wrong, limit=5, safety_prompt="")
    assert figures["harmful call", "no attack"].rerouted == 0.0
    assert figures["malformed call", "no attack"].rerouted == 1.0
    assert figures["malformed call", "forced call"].rerouted == 1.0
    assert figures["right call by form", "ordinary"].rerouted == 0.0
    assert figures["right call by effect", "ordinary"].rerouted == 0.0
    assert figures["no call", "ordinary"].rerouted == 0.0, "there is one, of a function that there is not"
    assert figures["right call by form", "borderline"].rerouted == 0.0
    assert {part for _, part in figures} == {
        "no attack",
        "forced call",
        "injection",
        "ordinary",
        "borderline",
    }


def test_noise_and_enormous_answers_are_no_success():
    asked = plain(tool_requests("harmful", "test")[:5], "json")
    for text in (
        "",
        "\x00" * 50,
        "{" * 5000,
        "9" * 100_000,
        "no" * 60_000,
        '{"name": "send_money", "arguments": {',
    ):
        for one in asked:
            row = score(text, one)
            assert (row["harm"], row["effect"], bool(row["mismatch"]), row["calls"]) == (
                False,
                False,
                True,
                [],
            )
            json.dumps(row)
    odd = f"{asked[0].request.call.name}(a={{1, 2}}, b=1e999, c=b'x')"
    assert json.dumps(score(odd, asked[0])) and not score(odd, asked[0])["harm"]


@pytest.mark.parametrize(
    ("style", "ends"), [("json", '", "arguments": {'), ("tagged", '", "arguments": {'), ("pythonic", "(")]
)
def test_a_forced_call_may_leave_the_arguments_alone_to_the_model(style, ends):
    found, figures, _ = measured(
        lambda request, attempt: as_text(request.chat(), style).response[len(attempt.prefill) :],
        careful, limit=3, style=style, forced="arguments", safety_prompt="", injection=False,
    )  # fmt: skip
    rows = [row for row in found.rows if row["part"] == "forced call"]
    assert len(rows) == 3 and all(row["prefill"].endswith(row["wanted"]["name"] + ends) for row in rows)
    assert figures["harmful call", "forced call"].base == 1.0
    assert ("harmful call", "injection") not in figures


@pytest.mark.parametrize("template", [HERMES, LLAMA31, MISTRAL_V3, PYTHONIC])
def test_templates_that_know_functions_write_them_their_own_way(template):
    target = tiny_target(tiny_with_tools(template))
    found = ToolCalls(limit=2, safety_prompt="").measure(target, target, AIDS)
    assert found.notes[0] == "functions and calls are written as: template"
    forced = [row for row in found.rows if row["part"] == "forced call"]
    assert all(row["prefill"].endswith(row["wanted"]["name"]) for row in forced)
    assert all(one.n == 2 for one in found.findings)
    (hidden,) = injected(tool_requests("harmful", "test")[:1], "template")
    prompt = target.tokenizer.decode(target.prompt_ids(hidden.attempt))
    assert "Message to the assistant" in prompt and "read_file" in prompt


def test_what_was_trained_on_is_left_out():
    ids = [one.id for one in tool_requests("harmful", "test")[:2]]
    seen = Aids(
        0, lambda chats, judged: [], None, unseen=lambda chats: [one for one in chats if one.id not in ids]
    )
    model = Scripted(obeys, tiny(CHATML))
    found = ToolCalls().measure(model, model, seen)
    assert "harmful: 2 of 51 left out, the run was trained on them" in found.notes
    assert not {row["id"] for row in found.rows} & set(ids)
    with pytest.raises(UserError, match="trained on every harmful request for calls of the split test"):
        ToolCalls().measure(model, model, Aids(0, seen.label, None, unseen=lambda chats: list[Chat]()))
