"""Function calls in what a model wrote, in whatever style, with prose around them and ends cut off.

Read are JSON objects with name and arguments (bare, in lists, in `<tool_call>`, `<functioncall>` or `[TOOL_CALLS]`,
arguments also as JSON text), `name{…}` after `[TOOL_CALLS]`, `<function=name>{…}`, and pythonic calls. What begins as a
call and is none (cut off, no JSON) is *broken* and named as such: it is never taken for a call.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rerouting.core.records import Call, Tool

LONGEST = 50_000
"""Letters that are read of a text."""
_START = re.compile(
    r"<function=(?P<tag>[\w.-]+)>\s*(?=\{)"
    r"|(?<!\w)(?P<named>[A-Za-z_][\w.-]*+)(?:\[ARGS\])?\s*(?=\{)"
    r"|(?<!\w)(?P<python>[A-Za-z_][\w.]*+)\("
    r"|\{"
)
_BEFORE = re.compile(r"(?:(?:\[TOOL_CALLS\]|<tool_call>|<functioncall>|<\|python_tag\|>|\[)\s*)+$")
_AFTER = re.compile(r"(?:\s*(?:\]|</tool_call>|</function>|</functioncall>))+")
_CALL_LIKE = re.compile(r"""\{\s*["'](?:name|function|tool_calls|type)["']""")
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Found:
    """A call, and where it stands in the text, the marks around it included."""

    call: Call
    start: int
    end: int


@dataclass
class Parsed:
    """What was found in a text.

    Attributes:
        calls: whole calls, in order.
        broken: why, of each that begins as a call and is none.
    """

    calls: list[Found] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class NotACall(ValueError):  # noqa: N818 - it is caught here
    """Why something that looks like a call is none."""


def parse_calls(text: str, tools: Sequence[Tool] = ()) -> Parsed:
    """All calls in a text.

    Args:
        text: what a model wrote; whatever it is, no error is raised.
        tools: those that it may call: they give names to pythonic calls outside of a list, and to their arguments
            without one.
    """
    reading = _Reading(text[:LONGEST], {tool.name: tool for tool in tools})
    place: int | None = 0
    while place is not None:
        place = reading.next(place)
    return reading.parsed


@dataclass
class _Reading:
    text: str
    tools: Mapping[str, Tool]
    parsed: Parsed = field(default_factory=Parsed)

    def next(self, place: int) -> int | None:
        """Read what begins at or after `place`; where to go on, None at the end."""
        match = _START.search(self.text, place)
        if match is None:
            return None
        if match["python"]:
            return self._python(match)
        name = match["tag"] or match["named"]
        if not name:
            return self._object(match.start())
        marked = bool(match["tag"]) or self.text[: match.start()].rstrip().endswith("[TOOL_CALLS]")
        if not (marked or name in self.tools):
            return match.end()
        return self._named(match.start(), match.end(), name)

    def _object(self, start: int) -> int | None:
        marked = bool(_BEFORE.search(self.text[max(0, start - 60) : start].rstrip("[ \n")))
        looks = marked or bool(_CALL_LIKE.match(self.text, start))
        read = self._value(start, looks)
        if not isinstance(read, tuple):
            return read
        value, end = read
        try:
            calls = list(_calls_of(value, self.tools))
        except NotACall as reason:
            self.parsed.broken.append(str(reason))
            return end
        for call in calls:
            self._add(call, start, end)
        return end if calls else start + 1

    def _named(self, start: int, brace: int, name: str) -> int | None:
        read = self._value(brace, True)
        if not isinstance(read, tuple):
            return read
        self._add(Call(name, read[0]), start, read[1])
        return read[1]

    def _value(self, start: int, looks_like_call: bool) -> tuple[dict[str, Any], int] | int | None:
        """The object at a brace and its end; else where to go on."""
        try:
            return _object(self.text, start, lenient=looks_like_call)
        except (ValueError, RecursionError):
            if not looks_like_call:
                return start + 1
        end = _balanced(self.text, start)
        self.parsed.broken.append("cut off" if end is None else "not JSON")
        return end

    def _python(self, match: re.Match[str]) -> int | None:
        name, start = match["python"], match.start()
        listed = self.text[:start].rstrip().endswith("[")
        listed |= bool(self.parsed.calls) and self.text[self.parsed.calls[-1].end : start].strip() == ","
        if not (listed or name in self.tools):
            return match.end()
        end = _balanced(self.text, match.end() - 1)
        if end is None:
            self.parsed.broken.append("cut off")
            return None
        try:
            self._add(_python_call(self.text[start:end], self.tools.get(name)), start, end)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            self.parsed.broken.append("not a call with plain values")
        return end

    def _add(self, call: Call, start: int, end: int) -> None:
        earliest = self.parsed.calls[-1].end if self.parsed.calls else 0
        before = _BEFORE.search(self.text, max(earliest, start - 60), start)
        after = _AFTER.match(self.text, end)
        found = Found(call, before.start() if before else start, after.end() if after else end)
        self.parsed.calls.append(found)


def _object(text: str, start: int, lenient: bool = True) -> tuple[dict[str, Any], int]:
    """The JSON object, or the Python one if `lenient`, that begins here, and where it ends."""
    try:
        value, end = json.JSONDecoder(strict=False, parse_constant=_no_number).raw_decode(text, start)
    except ValueError:
        stop = _balanced(text, start) if lenient else None
        if stop is None:
            raise
        try:
            value, end = ast.literal_eval(text[start:stop]), stop
        except (SyntaxError, TypeError, MemoryError) as error:
            raise ValueError("not a Python object") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value, end


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _calls_of(value: Any, tools: Mapping[str, Tool]) -> Sequence[Call]:
    """The calls that an object is or has in its `tool_calls`.

    Raises:
        NotACall: it is meant as one, and has no name or no arguments that are an object.
    """
    if isinstance(value.get("tool_calls"), list):
        return [
            call for one in value["tool_calls"] if isinstance(one, dict) for call in _calls_of(one, tools)
        ]
    inner = value.get("function")
    if isinstance(inner, dict):
        value = inner
    name = value.get("name", inner if isinstance(inner, str) else None)
    given = next((value[key] for key in ("arguments", "parameters", "args") if key in value), None)
    if "description" in value and "parameters" in value:  # a schema that is repeated
        return []
    if name is None or (given is None and name not in tools if isinstance(name, str) else False):
        return []
    if not isinstance(name, str) or not name:
        raise NotACall("the name is no text")
    return [Call(name, _arguments({} if given is None else given))]


def _arguments(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        try:
            given = _object(given, 0)[0] if given.lstrip().startswith("{") else given
        except (ValueError, RecursionError) as error:
            raise NotACall("the arguments are no JSON") from error
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise NotACall("the arguments are no object")
    return given


def _python_call(text: str, tool: Tool | None) -> Call:
    node = ast.parse(text.strip(), mode="eval").body
    if not isinstance(node, ast.Call):
        raise ValueError("not a call")
    names = list(tool.parameters.get("properties", {})) if tool else []
    if len(node.args) > len(names) or any(one.arg is None for one in node.keywords):
        raise ValueError("values without a name")
    given = [(name, _literal(one)) for name, one in zip(names, node.args, strict=False)]
    given += [(str(one.arg), _literal(one.value)) for one in node.keywords]
    return Call(ast.unparse(node.func), dict(given))


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    return ast.literal_eval(node)


def _balanced(text: str, start: int) -> int | None:
    """Where the bracket at `start` is closed, quoted text apart; None if it is not."""
    depth, quote, at = 0, "", start
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    return None
