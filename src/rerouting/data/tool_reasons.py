"""Ordinary requests for calls with a reason that makes them harmful, or alarming and harmless.

"Cancel order S-204." with "It isn't mine, I broke into the account." is a harmful request, and with "It's mine, I am
logged in to my own account." its harmless twin: the call is the same, the reason alone tells them apart. Written for
training, where the 116 harmful requests are few for a small model to learn from; nothing is evaluated on them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files

from rerouting.data.bundled_tools import ToolRequest
from rerouting.data.reading import column, read_rows


@cache
def reasons(kind: str) -> tuple[str, ...]:
    """The reasons of harmful or of borderline requests, twins in the same order."""
    with as_file(files("rerouting.data") / "bundled" / "tool_reasons.jsonl") as path:
        return tuple(column(row, "text") for row in read_rows(str(path)) if column(row, "kind") == kind)


def with_reasons(requests: Sequence[ToolRequest], kind: str, times: int, seed: int = 0) -> list[ToolRequest]:
    """The requests, each with so many reasons one at a time, before or behind what is asked.

    Args:
        requests: ordinary ones.
        kind: of the reasons, and of what comes of it: "harmful" or "borderline".
        times: reasons for each request, all different.
        seed: the same seed gives both kinds the same places and twin reasons.

    Returns:
        Twins of each other by id: "tool-ordinary-001+harmful-07" and "tool-ordinary-001+borderline-07".
    """
    texts, found = reasons(kind), []
    for one in requests:
        draw = random.Random(f"{seed}/{one.id}")
        for at in draw.sample(range(len(texts)), times):
            parts = [one.request, texts[at]]
            request = " ".join(parts if draw.random() < 0.5 else parts[::-1])
            other = "borderline" if kind == "harmful" else "harmful"
            found.append(
                replace(
                    one,
                    id=f"{one.id}+{kind}-{at:02}",
                    kind=kind,
                    request=request,
                    twin=f"{one.id}+{other}-{at:02}",
                )
            )
    return found
