"""Requests with other values and with reasons: the call still is the one that is asked for."""

import json

import pytest

from rerouting.agents.matching import does_as_asked, mismatch
from rerouting.core.finder import Component, build
from rerouting.data.bundled_tools import tool_requests
from rerouting.data.tool_reasons import reasons, with_reasons
from rerouting.data.tool_variants import variants

KINDS = ("harmful", "ordinary", "borderline")


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_variant_asks_for_is_what_its_call_does(kind):
    requests = tool_requests(kind, "test")
    found = variants(requests, 3, seed=1)
    assert found[: len(requests)] == requests and len(found) == 3 * len(requests)
    assert len({one.id for one in found}) == len(found)
    changed = 0
    for one, old in zip(found[len(requests) :], requests * 2, strict=True):
        assert one.id.partition("#")[0] == old.id and one.call.name in one.offered
        assert 2 <= len(set(one.offered)) == len(one.offered) <= 4
        assert not mismatch([one.call], one) and does_as_asked([one.call], one)
        assert one.call.arguments.keys() == old.call.arguments.keys()
        for name, value in one.call.arguments.items():
            if value != old.call.arguments[name]:
                changed += 1
                assert str(value) in one.request and type(value) is type(old.call.arguments[name])
                assert mismatch([old.call], one), "the old call is wrong now"
    assert changed > len(requests) // 2
    assert variants(requests, 3, seed=1) == found != variants(requests, 3, seed=2)


def test_values_that_cannot_be_changed_in_the_text_stay():
    for one, old in zip(variants(REQUESTS, 2)[len(REQUESTS) :], REQUESTS, strict=True):
        for name, value in old.call.arguments.items():
            if old.request.count(str(value)) != 1 or name in old.allowed:
                assert one.call.arguments[name] == value


REQUESTS = [one for kind in KINDS for one in tool_requests(kind, "train")]


def test_reasons_are_twins_with_the_same_call():
    requests = tool_requests("ordinary", "train")[:20]
    harmful, borderline = (with_reasons(requests, kind, 3) for kind in ("harmful", "borderline"))
    assert len(harmful) == len(borderline) == 60
    assert len(reasons("harmful")) == len(set(reasons("harmful") + reasons("borderline"))) // 2 == 40
    for one, other in zip(harmful, borderline, strict=True):
        assert (one.twin, other.twin) == (other.id, one.id) and (one.kind, other.kind) == (
            "harmful",
            "borderline",
        )
        assert one.call == other.call and one.offered == other.offered and one.request != other.request
        (text,) = [reason for reason in reasons("harmful") if reason in one.request]
        assert reasons("borderline")[reasons("harmful").index(text)] in other.request


def test_the_sources_give_them():
    def load(name, **options):
        return build("data.sources", Component(name, options)).load()

    assert len(load("tools", kind="ordinary", limit=5, times=3)) == 15
    found = load("tool_reasons", kind="harmful", style="json", limit=4, times=2)
    assert len(found) == 8 and all(
        json.loads(chat.response)["name"] in chat.messages[0].content for chat in found
    )
    ids = [chat.id for chat in found]
    other = [chat.id for chat in load("tool_reasons", kind="borderline", limit=4, times=2)]
    assert [one.replace("harmful", "borderline") for one in ids] == other
    for options in ({"times": 0}, {"times": 2, "after_result": True}):
        with pytest.raises(Exception, match="times"):
            load("tools", **options)
    with pytest.raises(Exception, match="others 13"):
        load("tools", others=13)
    with pytest.raises(Exception, match="times 41"):
        load("tool_reasons", times=41)


def test_fewer_functions_on_offer_make_chats_shorter():
    def load(**options):
        return build("data.sources", Component("tools", {"limit": 6, "times": 2, **options})).load()

    for count in (0, 2):
        found = load(others=count)
        assert [len(chat.tools) for chat in found] == [count + 1] * 12
        for chat, usual in zip(found, load(), strict=True):
            assert (chat.id, chat.request, chat.calls) == (usual.id, usual.request, usual.calls)
            assert chat.calls[0].name in [tool.name for tool in chat.tools]
    assert load(others=2) == load(others=2)
    assert len({tuple(tool.name for tool in chat.tools) for chat in load(others=2)}) > 6


def test_a_harmful_request_and_its_twin_have_the_same_functions_on_offer():
    def offered(kind):
        chats = build("data.sources", Component("tools", {"kind": kind, "others": 1, "times": 2})).load()
        return {chat.id: [tool.name for tool in chat.tools] for chat in chats}

    harmful, twins = offered("harmful"), offered("borderline")
    pairs = [(one.id, one.twin) for one in tool_requests("harmful", "train")]
    assert len(pairs) > 200
    for name, twin in pairs:
        assert harmful[name] == twins[twin] and set(harmful[f"{name}#2"]) == set(twins[f"{twin}#2"])
