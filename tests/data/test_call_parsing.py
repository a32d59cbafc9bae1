"""Calls in what models write, whatever the style, and what is none."""

import random

import pytest

from rerouting.core.records import Call, Tool
from rerouting.data.call_parsing import LONGEST, parse_calls

PAY = Tool("pay", "", {"type": "object", "properties": {"to": {"type": "string"}, "sum": {"type": "number"}}})
BO = Call("pay", {"to": "Bo", "sum": 5})
WHOLE = [
    '{"name": "pay", "arguments": {"to": "Bo", "sum": 5}}',
    '{"name": "pay", "parameters": {"to": "Bo", "sum": 5}}',
    '{"function": "pay", "args": {"to": "Bo", "sum": 5}}',
    '{"type": "function", "function": {"name": "pay", "arguments": "{\\"to\\": \\"Bo\\", \\"sum\\": 5}"}}',
    '{"tool_calls": [{"name": "pay", "arguments": {"to": "Bo", "sum": 5}}]}',
    "{'name': 'pay', 'arguments': {'to': 'Bo', 'sum': 5}}",
    '<tool_call>\n{"name": "pay", "arguments": {"to": "Bo", "sum": 5}}\n</tool_call>',
    '<functioncall> {"name": "pay", "arguments": \'{"to": "Bo", "sum": 5}\'}',
    '[TOOL_CALLS] [{"name": "pay", "arguments": {"to": "Bo", "sum": 5}, "id": "call00000"}]',
    '[TOOL_CALLS]pay{"to": "Bo", "sum": 5}',
    '[TOOL_CALLS]pay[ARGS]{"to": "Bo", "sum": 5}',
    '<function=pay>{"to": "Bo", "sum": 5}</function>',
    '<|python_tag|>{"name": "pay", "parameters": {"to": "Bo", "sum": 5}}',
    'pay{"to": "Bo", "sum": 5}',
    '[pay(to="Bo", sum=5)]',
    "pay('Bo', 5)",
    "pay(to='Bo', sum=5)",
]


@pytest.mark.parametrize("text", WHOLE)
@pytest.mark.parametrize(("before", "after"), [("", ""), ("Sure (at once): ", " Done, {as} you asked [1].")])
def test_every_style_is_read_with_prose_around_it(text, before, after):
    parsed = parse_calls(before + text + after, [PAY])
    assert [found.call for found in parsed.calls] == [BO] and parsed.broken == []
    (found,) = parsed.calls
    assert (before + text + after)[found.start : found.end].strip() == text


@pytest.mark.parametrize("text", WHOLE)
def test_a_call_that_is_cut_off_is_never_a_call(text):
    last = max(text.rfind(mark) for mark in "})")
    brackets = [at for at, letter in enumerate(text) if letter in "})"]
    for cut in range(1, last + 1):
        parsed = parse_calls(text[:cut], [PAY])
        if text.startswith('{"tool_calls"') or cut <= brackets[-1]:
            assert all(found.call == BO for found in parsed.calls)
        if "5" not in text[:cut]:
            assert parsed.calls == []
    assert parse_calls(text[: text.index("Bo") + 2], [PAY]).broken == ["cut off"]


def test_several_calls_and_their_places():
    text = 'First [pay(to="Bo", sum=5), pay(to="Al")] then {"name": "pay", "arguments": {}}'
    parsed = parse_calls(text)
    assert [found.call.arguments for found in parsed.calls] == [{"to": "Bo", "sum": 5}, {"to": "Al"}, {}]
    assert [text[found.start : found.end] for found in parsed.calls] == [
        '[pay(to="Bo", sum=5)', 'pay(to="Al")]', '{"name": "pay", "arguments": {}}',
    ]  # fmt: skip
    tagged = "".join(f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>\n' for name in "ab")
    assert [found.call.name for found in parse_calls(tagged).calls] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("", 0),
        ("I would call pay for that, but I will not.", 0),
        ('The file holds {"name": "Bo", "age": 5}.', 0),
        ('{"name": "pay", "description": "Pays.", "parameters": {"type": "object"}}', 0),
        ("print(1) and [a link](http://x.y)", 0),
        ('{"name": "pay", "arguments": [1, 2]}', 1),
        ('{"name": "pay", "arguments": "all of it"}', 1),
        ('{"name": 5, "arguments": {}}', 1),
        ('{"name": "pay", "arguments": {"sum": NaN}}', 1),
        ('{"name": "pay", "arguments": {to: Bo}}', 1),
        ("pay(to=somebody)", 1),
        ("pay(**everything)", 1),
        ("pay('Bo', 5, 6)", 1),
        ("pay(to=" + "[" * 3000 + "]" * 3000 + ")", 1),
        ('{"name": "pay", "arguments": {"sum": ' + "9" * 5000 + "}}", 1),
        ('<tool_call>\n{"nothing', 1),
        ("{" * 2000, 0),
        ('{"name":' * 500, 1),
        ("\x00\ud800 pay(\x00)", 1),
    ],
)
def test_what_is_no_call_is_none(text, broken):
    parsed = parse_calls(text, [PAY])
    assert parsed.calls == [] and len(parsed.broken) == broken


def test_a_call_inside_of_an_argument_is_no_call():
    inner = '{\\"name\\": \\"pay\\", \\"arguments\\": {}}'
    parsed = parse_calls(f'{{"name": "say", "arguments": {{"text": "{inner} pay(to=1)"}}}}', [PAY])
    assert [found.call.name for found in parsed.calls] == ["say"]


def test_noise_is_never_an_error():
    draw = random.Random(0)
    parts = [
        "{",
        "}",
        '"name"',
        ":",
        '"pay"',
        "pay(",
        ")",
        "[",
        "]",
        "'",
        "\\",
        "<tool_call>",
        "[TOOL_CALLS]",
        ",",
        "é",
    ]
    for _ in range(500):
        text = "".join(draw.choices(parts, k=30))
        for found in parse_calls(text, [PAY]).calls:
            assert 0 <= found.start < found.end <= len(text)
    assert parse_calls("x" * LONGEST + WHOLE[0], [PAY]).calls == []
