"""The sources of function calls: the bundled ones, Glaive's published format, the filter against evaluation calls."""

import json

import pytest

from rerouting.core.errors import UserError
from rerouting.core.records import Call, Chat, Message
from rerouting.data.bundled_tools import tool_requests
from rerouting.data.filtering import calls_of, drop_like_calls
from rerouting.data.formatting import tokenise_all
from rerouting.data.sampling import sample_completions
from rerouting.data.sources.chats import Chats
from rerouting.data.sources.glaive import Glaive
from rerouting.data.sources.tools import Tools
from tests.data.tokenizers_of_families import CHATML, tiny
from tests.data.tool_templates import HERMES, PYTHONIC, tiny_with_tools

RATE = (
    "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
    '{\n    "name": "get_rate",\n    "description": "Get the exchange rate",\n    "parameters": {\n'
    '        "type": "object",\n        "properties": {\n            "base": {\n'
    '                "type": "string"\n            }\n        },\n'
    '        "required": [\n            "base"\n        ]\n'
    "    }\n}\n"
)
NEWS = '{\n    "name": "get_news",\n    "description": "Headlines",\n    "parameters": {}\n}\n'
NONE = "SYSTEM: You are a helpful assistant, with no access to external functions.\n"
CALLED = (
    'USER: Hi, what is the rate of USD?\n\n\nASSISTANT: <functioncall> {"name": "get_rate", "arguments": '
    '\'{"base": "USD"}\'} <|endoftext|>\n\n\nFUNCTION RESPONSE: {"rate": 0.85}\n\n\n'
    "ASSISTANT: It is 0.85. <|endoftext|>\n\n\nUSER: Thanks!\n\n\nASSISTANT: You're welcome. <|endoftext|>\n\n\n"
)
TALKED = "USER: Book me a flight.\n\n\nASSISTANT: I'm sorry, I can't do that. <|endoftext|>\n\n\n"
BROKEN = CALLED.replace('\'{"base": "USD"}\'}', '\'{"base": "US')


def write(tmp_path, rows):
    file = tmp_path / "glaive.json"
    file.write_text(json.dumps([{"system": system, "chat": chat} for system, chat in rows]))
    return str(file)


def test_glaives_published_format(tmp_path):
    path = write(
        tmp_path,
        [(RATE + "\n" + NEWS, CALLED), (NONE, TALKED), (RATE, BROKEN), (RATE[:150], CALLED), (NONE, CALLED)],
    )
    whole, talk = Glaive(path).load()
    assert [tool.name for tool in whole.tools] == ["get_rate", "get_news"]
    assert whole.tools[0].parameters["required"] == ["base"]
    assert whole.tools[1].parameters == {"type": "object", "properties": {}}
    assert whole.messages == (
        Message("user", "Hi, what is the rate of USD?"),
        Message("assistant", "", (Call("get_rate", {"base": "USD"}),)),
        Message("tool", '{"rate": 0.85}', name="get_rate"),
        Message("assistant", "It is 0.85."),
        Message("user", "Thanks!"),
    )
    assert (whole.response, whole.calls, whole.id) == ("You're welcome.", (), "glaive-0")
    assert (talk.tools, talk.response, talk.id) == ((), "I'm sorry, I can't do that.", "glaive-1")
    (called,) = Glaive(path, end="call").load()
    assert called.calls == (Call("get_rate", {"base": "USD"}),) and len(called.messages) == 1
    assert called.meta == {"call_text": "get_rate USD"}
    assert [chat.id for chat in Glaive(path, limit=1).load()] == ["glaive-0"]
    for template in (HERMES, PYTHONIC):
        examples, _ = tokenise_all([whole, called], tiny_with_tools(template))
        assert len(examples) == 2
    plain = Glaive(path, style="json").load()[0]
    assert plain.tools == () and plain.messages[3].content == 'Result of get_rate: {"rate": 0.85}'
    assert len(tokenise_all([plain], tiny(CHATML))[0]) == 1


def test_glaive_without_anything_to_take_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no conversation can be taken"):
        Glaive(write(tmp_path, [(RATE, BROKEN)])).load()
    with pytest.raises(UserError, match="no conversation can be taken"):
        Glaive(write(tmp_path, [(NONE, TALKED)]), end="call").load()
    with pytest.raises(UserError, match="no column 'system'"):
        file = tmp_path / "other.jsonl"
        file.write_text('{"a": "b"}\n')
        Glaive(str(file)).load()


def test_the_bundled_source_in_each_style():
    chats = Tools("harmful", "test").load()
    assert len(chats) == 51 and all(chat.tools and chat.calls and chat.response is None for chat in chats)
    assert chats[0].source == "tools/harmful/test" and chats[0].category
    plain = Tools("ordinary", "train", style="json", system="Be brief.", limit=3).load()
    assert len(plain) == 3
    for chat in plain:
        assert chat.messages[0].content.startswith("You can call these functions.")
        assert chat.messages[0].content.endswith("Be brief.") and chat.target.startswith('{"name": "')
        assert json.loads(chat.response).keys() == {"name", "arguments"} and not chat.tools
    examples, lost = tokenise_all(plain, tiny(CHATML), mask="calls")
    assert lost == 0 and all(any(one.mask) for one in examples)
    (after,) = Tools("ordinary", "test", after_result=True, limit=1).load()
    assert [turn.role for turn in after.messages] == ["user", "assistant", "tool"] and not after.is_answered
    assert json.loads(after.messages[2].content) and after.messages[2].name == after.messages[1].calls[0].name
    said = sample_completions(lambda prompts: [[65, 66]], [after], tiny_with_tools(HERMES))[0]
    assert said.response and not said.calls
    with pytest.raises(UserError, match="cannot be written as 'jsno'"):
        Tools(style="jsno").load()


def test_calls_like_evaluated_ones_are_dropped():
    test = Tools("harmful", "test").load()
    references = calls_of(test)
    assert len(references) == len(test) and calls_of([Chat("a", (Message("user", "x"),))]) == []
    kept, dropped = drop_like_calls(test, references, 0.1)
    assert kept == [] and all(one.score > 0.99 or len(one.reference.split()) < 4 for one in dropped)
    mild, _ = drop_like_calls(Tools("harmful", "train").load(), references, 0.6)
    strict, gone = drop_like_calls(Tools("harmful", "train").load(), references, 0.1)
    assert 0 < len(strict) < len(mild) and len(strict) + len(gone) == len(tool_requests("harmful", "train"))
    plain = Chat("p", (Message("user", "hello"),))
    assert drop_like_calls([plain], references, 0.1) == ([plain], [])


SCHEMA = {
    "type": "function",
    "function": {"name": "pay", "description": "Pay.", "parameters": {"type": "object"}},
}
CALL = {"type": "function", "id": "1", "function": {"name": "pay", "arguments": '{"to": "Bo"}'}}
TURNS = [
    {"role": "user", "content": "Pay Bo."},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "name": "pay", "content": "no money"},
    {"role": "assistant", "content": "Again:", "tool_calls": [CALL]},
]


def own(tmp_path, messages, tools, **options):
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"messages": messages, "tools": tools}) + "\n")
    return Chats(str(file), messages="messages", tools="tools", **options).load()


def test_own_chats_with_functions(tmp_path):
    for tools in ([SCHEMA], json.dumps([SCHEMA["function"]])):
        (chat,) = own(tmp_path, TURNS, tools)
        assert [tool.name for tool in chat.tools] == ["pay"] and chat.response == "Again:"
        assert chat.calls == chat.messages[1].calls == (Call("pay", {"to": "Bo"}),)
        assert chat.messages[2] == Message("tool", "no money", name="pay")
    (chat,) = own(tmp_path, TURNS[:3], [SCHEMA])
    assert not chat.is_answered and chat.request == "Pay Bo."
    (chat,) = own(tmp_path, TURNS, [SCHEMA], style="tagged")
    assert not chat.tools and chat.response.endswith("</tool_call>")


@pytest.mark.parametrize(
    ("messages", "tools", "problem"),
    [
        (
            [*TURNS[:1], {"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}],
            [],
            "call without a name",
        ),
        ([{"role": "user", "content": "x", "tool_calls": [CALL]}], [], "turn of the user has calls"),
        ([{"role": "assistant", "content": "", "tool_calls": 5}], [], "calls are no list"),
        (TURNS, ["pay"], "function without a name"),
        (TURNS, [{"function": "pay"}], "function without a name"),
        (TURNS, "[", "no JSON"),
        (TURNS, 5, "no list"),
    ],
)
def test_broken_functions_and_calls_are_refused_with_their_place(tmp_path, messages, tools, problem):
    with pytest.raises(UserError, match=rf"own.jsonl, line 1.*{problem}"):
        own(tmp_path, messages, tools)
