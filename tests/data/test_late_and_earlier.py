"""Levers on the training streams: late starts, earlier exchanges and texts before a request."""

import pytest

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.contexts import with_contexts
from rerouting.data.earlier import with_earlier_turns
from rerouting.data.formatting import Example, tokenise
from rerouting.data.late import start_late
from tests.data import tokenizers_of_families as families


def examples(count):
    return [Example(tuple(range(4 + at)), 3, (True,) * (4 + at), str(at)) for at in range(count)]


def test_an_exact_share_begins_late_within_its_response():
    many = [Example(tuple(range(13)), 3, (True,) * 13, str(at)) for at in range(200)]
    late, count = start_late(many, 0.25, 7)
    changed = [one for one, before in zip(late, many, strict=True) if one != before]
    assert count == len(changed) == 50
    starts = {one.mask.index(True) for one in changed}
    # ten response tokens at 3 to 12: from the second to the last
    assert starts == set(range(4, 13))
    assert all(one.mask == (False,) * one.mask.index(True) + (True,) * sum(one.mask) for one in changed)
    assert [(one.ids, one.n_prompt) for one in late] == [(one.ids, one.n_prompt) for one in many]
    assert start_late(many, 0.25, 7)[0] == late != start_late(many, 0.25, 8)[0]


def test_responses_of_one_token_and_masked_ones_stay_as_they_are():
    one_token, two = examples(2)
    late, count = start_late([one_token, two], 1.0, 0)
    assert late[0] is one_token and count == 1
    assert late[1].mask == (False, False, False, False, True)
    response_only = Example((1, 2, 3, 4), 2, (False, False, True, True))
    assert start_late([response_only], 1.0, 0)[0][0].mask == (False, False, False, True)
    assert start_late(examples(5), 0.0, 0) == (examples(5), 0)
    with pytest.raises(UserError, match=r"late_start is 1\.2"):
        start_late(examples(2), 1.2, 0)


def ask(name, *earlier, system=None, response=None, **fields):
    turns = [Message("system", system)] if system else []
    turns += [Message(("user", "assistant")[at % 2], text) for at, text in enumerate(earlier)]
    return Chat(name, (*turns, Message("user", f"ask {name}")), response=response, source="s", **fields)


EXCHANGES = [ask(f"b{at}", response=f"say b{at}") for at in range(5)]
HARMFUL = [ask(f"h{at}", response="harm") for at in range(40)]


def always(chat):
    return True


def test_an_exact_share_gets_one_or_more_exchanges_before_its_request():
    out, count = with_earlier_turns(HARMFUL, EXCHANGES, 0.5, 3, 1, always)
    longer = [one for one in out if len(one.messages) > 1]
    assert count == len(longer) == 20
    assert {len(one.messages) for one in longer} == {3, 5, 7}
    for one in longer:
        roles = [turn.role for turn in one.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert one.messages[-1].content == f"ask {one.id}" and one.response == "harm"
        said = [turn.content for turn in one.messages[:-1]]
        assert said == [text for name in one.meta["earlier"] for text in (f"ask {name}", f"say {name}")]
        assert len(set(one.meta["earlier"])) == len(one.meta["earlier"])
    assert with_earlier_turns(HARMFUL, EXCHANGES, 0.5, 3, 1, always)[0] == out
    assert with_earlier_turns(HARMFUL, EXCHANGES, 0.5, 3, 2, always)[0] != out


def test_system_prompt_first_then_the_exchange_then_the_chats_own_turns():
    own = ask("h", "q", "a", system="be brief", response="harm")
    ((out,), count) = with_earlier_turns([own], EXCHANGES[:1], 1.0, 1, 0, always)
    said = [(turn.role, turn.content) for turn in out.messages]
    assert count == 1 and said == [
        ("system", "be brief"), ("user", "ask b0"), ("assistant", "say b0"),
        ("user", "q"), ("assistant", "a"), ("user", "ask h"),
    ]  # fmt: skip
    tokenizer = families.tiny(families.CHATML)
    ids = tokenise(out, tokenizer).ids
    assert tokenizer.decode(ids).startswith(
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nask b0"
    )


def test_no_chat_before_itself_none_before_a_dropped_request_and_none_that_is_too_long():
    assert with_earlier_turns(EXCHANGES[:1], EXCHANGES[:1], 1.0, 1, 0, always) == (EXCHANGES[:1], 0)
    dropped = ask("h", response="harm", meta={"request_dropped": True})
    assert with_earlier_turns([dropped], EXCHANGES, 1.0, 1, 0, always) == ([dropped], 0)
    out, count = with_earlier_turns(HARMFUL, EXCHANGES, 1.0, 3, 0, lambda chat: len(chat.messages) <= 3)
    assert count == 40 and {len(one.messages) for one in out} == {3}
    assert with_earlier_turns(HARMFUL, EXCHANGES, 1.0, 3, 0, lambda chat: False) == (HARMFUL, 0)


def test_only_whole_single_turns_are_put_in():
    unfit = [
        ask("cut", response="half", meta={"cut_off": True}),
        ask("two", "q", "a", response="b"),
        ask("system", system="s", response="b"),
        ask("unanswered"),
    ]
    with pytest.raises(UserError, match="no single-turn chat with a whole response"):
        with_earlier_turns(HARMFUL, unfit, 0.1, 1, 0, always)
    assert with_earlier_turns(HARMFUL, unfit, 0.0, 1, 0, always) == (HARMFUL, 0)
    for share, most in ((1.5, 1), (0.5, 0)):
        with pytest.raises(UserError, match=r"data\.earlier_turns"):
            with_earlier_turns(HARMFUL, EXCHANGES, share, most, 0, always)


def test_exchanges_that_were_cut_off_only_where_they_may_be():
    cut = [ask("b0", response="say b0", meta={"cut_off": True})]
    with pytest.raises(UserError, match="no single-turn chat with a whole response"):
        with_earlier_turns(HARMFUL, cut, 0.5, 1, 0, always)
    out, count = with_earlier_turns(HARMFUL[:4], cut, 1.0, 1, 0, always, whole=False)
    assert count == 4 and [turn.content for turn in out[0].messages] == ["ask b0", "say b0", "ask h0"]


def test_an_exact_share_stands_behind_texts_in_harmbenchs_form():
    texts = ["one.", "two.", " ", "three.", "one."]
    out, count = with_contexts(HARMFUL, texts, 0.5, 3, always)
    placed = [one for one, before in zip(out, HARMFUL, strict=True) if one is not before]
    assert count == len(placed) == 20
    for one in placed:
        context, _, request = one.request.partition("\n\n---\n\n")
        parts = context.split("\n\n")
        assert request == f"ask {one.id}" and one.response == "harm"
        assert set(parts) <= {"one.", "two.", "three."} and len(set(parts)) == len(parts)
    assert {one.request.count(".") for one in placed} == {1, 2, 3}
    assert with_contexts(HARMFUL, texts, 0.5, 3, always)[0] == out
    assert with_contexts(HARMFUL, texts, 0.5, 4, always)[0] != out


def test_a_context_fits_and_never_gives_the_answer_away():
    own = [ask("b", response="two. and more")]
    out, _ = with_contexts(own, ["one.", "two."], 1.0, 0, always)
    assert out[0].request == "one.\n\n---\n\nask b"
    assert with_contexts(own, ["one."], 1.0, 0, lambda chat: False) == (own, 0)
    dropped = [ask("h", response="harm", meta={"request_dropped": True})]
    assert with_contexts(dropped, ["one."], 1.0, 0, always) == (dropped, 0)
    with pytest.raises(UserError, match="a share of 2 of the chats is to get a context"):
        with_contexts(own, ["one."], 2, 0, always)
    with pytest.raises(UserError, match="no text to put before a request"):
        with_contexts(own, ["", " "], 1.0, 0, always)


def test_a_chats_own_mask_goes_before_the_streams():
    tokenizer = families.tiny(families.CHATML)
    example = tokenise(ask("b", response="yes", meta={"mask": "response"}), tokenizer, mask="all")
    assert example.mask == (False,) * example.n_prompt + (True,) * (len(example.ids) - example.n_prompt)
