"""Functions, calls and results through chat templates, as text, and under masks."""

import pytest

from rerouting.core.errors import UserError
from rerouting.core.files import sha256_of
from rerouting.core.records import Call, Chat, Message, Tool
from rerouting.data.formatting import render_prompt, tokenise
from rerouting.data.mixing import drop_requests
from rerouting.data.sampling import sample_completions
from rerouting.data.tool_template import call_opening, response_text, takes_tools
from rerouting.data.tool_text import as_text
from tests.data.tokenizers_of_families import CHATML, GEMMA, tiny
from tests.data.tool_templates import (
    HERMES,
    HERMES_REVERSED,
    LLAMA31,
    MISTRAL_V3,
    PYTHONIC,
    UNQUOTED,
    tiny_with_tools,
)

PAY = Tool(
    "pay",
    "Send money.",
    {
        "type": "object",
        "properties": {"to": {"type": "string"}, "sum": {"type": "number"}},
        "required": ["to"],
    },
)
ASK = Message("user", "Pay Bo 5.")
ONE = Chat("c", (ASK,), tools=(PAY,), calls=(Call("pay", {"to": "Bo", "sum": 5}),))
TWO = Chat(
    "c",
    (ASK, Message("assistant", "", ONE.calls), Message("tool", "no such person", name="pay")),
    tools=(PAY,),
    calls=(Call("pay", {"to": "Bob", "sum": 5}),),
)
CALLS = {
    LLAMA31: '{"name": "pay", "parameters": {"to": "Bo", "sum": 5}}',
    MISTRAL_V3: '[TOOL_CALLS] [{"name": "pay", "arguments": {"to": "Bo", "sum": 5}}]',
    HERMES: '<tool_call>\n{"name": "pay", "arguments": {"to": "Bo", "sum": 5}}\n</tool_call>',
    PYTHONIC: '[pay(to="Bo", sum=5)]',
}
ENDS = {LLAMA31: "<|eot_id|>", MISTRAL_V3: "</s>", HERMES: "<|im_end|>", PYTHONIC: "<|end|>"}
STYLES = pytest.mark.parametrize("template", CALLS, ids=["llama31", "mistral", "hermes", "pythonic"])


@STYLES
def test_a_call_is_written_as_the_template_does(template):
    tokenizer = tiny_with_tools(template)
    assert takes_tools(tokenizer)
    example = tokenise(ONE, tokenizer)
    prompt, response = (
        tokenizer.decode(part) for part in (example.ids[: example.n_prompt], example.ids[example.n_prompt :])
    )
    assert "Send money." in prompt and '"required": ["to"]' in prompt and "Pay Bo 5." in prompt
    assert response.strip() == CALLS[template] + ENDS[template]
    assert list(example.ids[: example.n_prompt]) == render_prompt(ONE, tokenizer)


@STYLES
def test_the_mask_covers_the_call_alone_token_by_token(template):
    tokenizer = tiny_with_tools(template)
    example = tokenise(ONE, tokenizer, mask="calls")
    chosen = [token for token, flag in zip(example.ids, example.mask, strict=True) if flag]
    assert tokenizer.decode(chosen) == CALLS[template]
    inside = [at for at, flag in enumerate(example.mask) if flag]
    assert inside == list(range(inside[0], inside[-1] + 1)) and inside[0] >= example.n_prompt
    assert not example.mask[-1], "the end of the turn is no part of the call"
    cut = tokenise(ONE, tokenizer, mask="calls", max_response=12)
    assert len(cut.ids) == len(cut.mask) == cut.n_prompt + 12 and any(cut.mask)
    assert tokenise(ONE, tokenizer, mask="response").mask == tuple(
        at >= example.n_prompt for at in range(len(example.ids))
    )


@STYLES
def test_results_and_a_second_call_follow_in_the_same_chat(template):
    tokenizer = tiny_with_tools(template)
    example = tokenise(TWO, tokenizer, mask="calls")
    text = tokenizer.decode(example.ids)
    places = [text.index(part) for part in ("Pay Bo 5.", '"Bo"', "no such person", '"Bob"')]
    assert places == sorted(places)
    chosen = tokenizer.decode([token for token, flag in zip(example.ids, example.mask, strict=True) if flag])
    assert chosen == CALLS[template].replace('"Bo"', '"Bob"'), "the earlier call is the prompt's"


@STYLES
def test_several_calls_in_one_turn(template):
    tokenizer = tiny_with_tools(template)
    several = Chat("c", (ASK,), tools=(PAY,), calls=(*ONE.calls, Call("pay", {"to": "Al", "sum": 1})))
    if template == LLAMA31:
        with pytest.raises(UserError, match=r"refuses c .*one tool call at a time.*write them as text"):
            tokenise(several, tokenizer)
        return
    example = tokenise(several, tokenizer, mask="calls")
    chosen = tokenizer.decode([token for token, flag in zip(example.ids, example.mask, strict=True) if flag])
    assert chosen.count("pay") == 2 and "Bo" in chosen and "Al" in chosen


@STYLES
def test_a_forced_call_begins_up_to_the_functions_name(template):
    tokenizer = tiny_with_tools(template)
    opening = call_opening(ONE, tokenizer)
    assert CALLS[template].startswith(opening.strip()) and opening.endswith("pay")
    assert opening in response_text(ONE, tokenizer)


def test_a_template_that_writes_arguments_first_does_not_give_them_away():
    tokenizer = tiny_with_tools(HERMES_REVERSED)
    text = response_text(ONE, tokenizer)
    assert text == '<tool_call>\n{"arguments": {"to": "Bo", "sum": 5}, "name": "pay"}\n</tool_call>'
    assert call_opening(ONE, tokenizer) == '<tool_call>\n{"name": "pay'
    assert call_opening(ONE, tokenizer, "arguments") == '<tool_call>\n{"name": "pay", "arguments": {'
    example = tokenise(ONE, tokenizer, mask="calls")
    assert sum(example.mask) == len(text)


def test_a_style_that_cannot_be_read_is_refused_with_the_way_out():
    tokenizer = tiny_with_tools(UNQUOTED)  # [pay(to=Bo, sum=5)]
    assert not takes_tools(tokenizer)
    with pytest.raises(UserError, match=r"leaves out calls of c, or writes them in an unknown style — write"):
        tokenise(ONE, tokenizer)


def test_text_beside_the_call_is_not_masked_in():
    tokenizer = tiny_with_tools(HERMES)
    spoken = Chat("c", (ASK,), response="I do it (pay it) now.", tools=(PAY,), calls=ONE.calls)
    example = tokenise(spoken, tokenizer, mask="calls")
    text = tokenizer.decode(example.ids[example.n_prompt :])
    assert text == "I do it (pay it) now.\n" + CALLS[HERMES] + "<|im_end|>"
    assert sum(example.mask) == len(CALLS[HERMES])
    refusing = tokenise(ONE.with_response("I will not."), tokenizer, mask="calls")
    assert not any(refusing.mask) and len(refusing.ids) > refusing.n_prompt


@pytest.mark.parametrize("template", [CHATML, GEMMA])
def test_a_template_without_tools_is_refused_with_the_way_out(template):
    tokenizer = tiny(template)
    assert not takes_tools(tokenizer)
    for chat in (ONE, Chat("c", (ASK,), tools=(PAY,)), Chat("c", TWO.messages)):
        with pytest.raises(
            UserError, match=r"leaves out .* of c, or .* — write them as text: option `style: json`"
        ):
            render_prompt(chat, tokenizer)
    with pytest.raises(UserError, match="no chat template"):
        render_prompt(ONE, tiny(None))
    plain = as_text(TWO, "json")
    text = tokenizer.decode(tokenise(plain, tokenizer).ids)
    assert "Send money." in text and "Result of pay: no such person" in text
    assert text.count('{"name": "pay", "arguments": {"to": "Bob", "sum": 5}}') == 1


@pytest.mark.parametrize(
    ("style", "call"),
    [
        ("json", '{"name": "pay", "arguments": {"to": "Bo", "sum": 5}}'),
        ("tagged", '<tool_call>{"name": "pay", "arguments": {"to": "Bo", "sum": 5}}</tool_call>'),
        ("pythonic", "[pay(to='Bo', sum=5)]"),
    ],
)
def test_calls_as_text_and_their_masks(style, call):
    tokenizer = tiny(CHATML)
    plain = as_text(ONE, style)
    assert (plain.tools, plain.calls, plain.response) == ((), (), call)
    assert plain.target == call[: call.index("pay") + 3]
    assert [turn.role for turn in plain.messages] == ["system", "user"]
    example = tokenise(plain, tokenizer, mask="calls")
    chosen = [token for token, flag in zip(example.ids, example.mask, strict=True) if flag]
    assert tokenizer.decode(chosen) == call
    assert as_text(plain, style) == plain


def test_text_styles_keep_a_system_prompt_and_let_turns_alternate():
    chat = Chat(
        "c", (Message("system", "Be brief."), *TWO.messages, Message("user", "Try Bob.")), tools=(PAY,)
    )
    plain = as_text(chat, "tagged")
    assert [turn.role for turn in plain.messages] == ["system", "user", "assistant", "user"]
    assert plain.messages[0].content.endswith("\n\nBe brief.") and plain.response is None
    assert plain.messages[-1].content == "Result of pay: no such person\nTry Bob."
    with pytest.raises(UserError, match="cannot be written as 'jsn' — did you mean json"):
        as_text(ONE, "jsn")


def test_plain_chats_are_hashed_as_before():
    chat = Chat("a", (Message("user", "Hi"),), response="Hello.")
    assert sha256_of(chat) == sha256_of(
        {"id": "a", "messages": [{"role": "user", "content": "Hi"}], "response": "Hello.", "target": None,
         "category": "", "form": "", "source": "", "meta": {}}
    )  # fmt: skip
    assert sha256_of(ONE) != sha256_of(Chat("c", (ASK,), tools=(PAY,)))
    assert len({ONE, ONE.with_response("x")}) == 2, "chats with functions can be hashed"


def test_the_request_is_the_users_even_after_results():
    assert TWO.request == "Pay Bo 5."
    assert [turn.content for turn in TWO.with_request("No.").messages] == ["No.", "", "no such person"]
    dropped = drop_requests([TWO], 1.0, 0)[0]
    assert dropped.messages == (Message("user", ""),) and dropped.calls == TWO.calls and dropped.tools


@STYLES
def test_on_policy_calls_are_whole_with_their_marks(template):
    tokenizer = tiny_with_tools(template)
    written = tokenizer(CALLS[template] + ENDS[template], add_special_tokens=False)["input_ids"]

    def generate(prompts):
        return [written for _ in prompts]

    (plain,) = sample_completions(generate, [ONE], tokenizer)
    assert plain.response == CALLS[template] and plain.calls == () and not plain.meta["cut_off"]
    rest = written[
        len(tokenizer(call_opening(ONE, tokenizer).strip(), add_special_tokens=False)["input_ids"]) :
    ]
    (forced,) = sample_completions(lambda prompts: [rest for _ in prompts], [ONE], tokenizer, prefixed=1.0)
    assert forced.response.strip() == CALLS[template]
    assert forced.meta["prefix"] == call_opening(ONE, tokenizer)
