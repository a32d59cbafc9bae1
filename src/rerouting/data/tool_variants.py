"""The same requests for calls with other values and other functions on offer: "Cancel order B-7" for "… B-4".

A value is changed if it stands in the request word for word, once: a date for another date, a number for one of half to
all of it, digits in a name or path for other digits, a person for another person. What is asked for stays the same
thing, so that a harmful request stays harmful. Nothing is taken from other requests: a split's variants stay its own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rerouting.core.records import Call
from rerouting.data.bundled_tools import ToolRequest, bundled_tools

_DATE = re.compile(r"20\d\d-\d\d-\d\d")
_PERSON = re.compile(r"[A-Z][a-z]+ [A-Z][a-z]+")
_PEOPLE = {
    *("candidate", "driver", "employee", "guest", "name", "passenger", "patient", "person", "recipient"),
    *("student", "to_account", "from_account", "account", "user"),
}
"""Arguments in which two capitalised words are a person."""
_FIRST = "Alba Bruno Carla Dario Elin Fritz Gaia Henk Irma Joel Kaja Luca Mirja Noel Olga Pavel Rita Stefan Tova Vera"
_LAST = "Abel Brandt Conti Dahl Evers Ferro Gruber Hald Ilves Jansen Kovac Lunde Moro Neri Orban Pohl Rossi Saar Tamm"


def variants(requests: Sequence[ToolRequest], times: int, seed: int = 0) -> list[ToolRequest]:
    """Each request so often: first as it is, then with other values and one to three other functions beside its own.

    Args:
        requests: any.
        times: at least 1.
        seed: same seed, same variants, whatever the other requests are.

    Returns:
        All requests as they are, then all of them changed for the first time, and so on; the ids of changed ones end
        in "#2", "#3" …
    """
    found = list(requests)
    for turn in range(2, times + 1):
        for one in requests:
            draw = random.Random(f"{seed}/{one.id}/{turn}")
            offered = _offered(one, draw.randint(1, 3), draw)
            other = _with_other_values(one, draw)
            found.append(replace(other, id=f"{one.id}#{turn}", offered=offered))
    return found


def among(requests: Sequence[ToolRequest], others: int, seed: int = 0) -> list[ToolRequest]:
    """Each request with its own function and so many others on offer; a harmful request and its twin have the same.

    Args:
        requests: any.
        others: at least 0.
        seed: of the drawing.
    """
    return [
        replace(one, offered=_offered(one, others, random.Random(f"{seed}/{_pair(one)}/others")))
        for one in requests
    ]


def _pair(one: ToolRequest) -> str:
    """What a request and its twin, both changed for the same time, have in common."""
    name, _, turn = one.id.partition("#")
    return f"{min(name, one.twin or name)}#{turn}"


def _offered(one: ToolRequest, others: int, draw: random.Random) -> tuple[str, ...]:
    """Its own function among others."""
    offered = [
        *draw.sample([name for name in sorted(bundled_tools()) if name != one.call.name], others),
        one.call.name,
    ]
    draw.shuffle(offered)
    return tuple(offered)


def _with_other_values(one: ToolRequest, draw: random.Random) -> ToolRequest:
    """The request with what can be changed changed, in its text and in its call alike."""
    request, arguments = one.request, dict(one.call.arguments)
    fixed = {*bundled_tools()[one.call.name].free, *one.allowed}
    for name, value in one.call.arguments.items():
        found = list(re.finditer(rf"(?<!\w){re.escape(str(value))}(?![\w.]*\w)", request))
        if name in fixed or len(found) != 1:
            continue
        arguments[name] = _other(name, value, draw)
        start, end = found[0].span()
        request = f"{request[:start]}{arguments[name]}{request[end:]}"
    return replace(one, request=request, call=Call(one.call.name, arguments), result="")


def _other(name: str, value: Any, draw: random.Random) -> Any:
    """Another value of the same kind; the same one where no other is known to be as good."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return value
    if isinstance(value, int):
        return draw.randint(value // 2 + 1, value) if value >= 10 else value
    if _DATE.fullmatch(value):
        return f"{value[:4]}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"
    if name in _PEOPLE and _PERSON.fullmatch(value):
        return f"{draw.choice(_FIRST.split())} {draw.choice(_LAST.split())}"
    return re.sub(r"\d", lambda _: str(draw.randint(1, 9)), value)
