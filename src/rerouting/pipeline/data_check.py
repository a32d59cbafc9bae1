"""An own data file looked through before it is trained on: every fault with the line it stands in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import median
from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.cleaning import Answers, CleaningConfig, fault, pictures_of, text_of
from rerouting.data.columns import chats_options
from rerouting.data.config import SourceConfig
from rerouting.data.duplicates import duplicates
from rerouting.data.formatting import encode, render_prompt, tokenise
from rerouting.data.reading import read_rows
from rerouting.data.sources.chats import Chats
from rerouting.pipeline.overlap import Overlap

UNBALANCED = 10
"""The largest category is a fault when it is more than this many times the median one."""


@dataclass(frozen=True)
class Fault:
    """Something to mend.

    Attributes:
        where: file and line; the file alone for what concerns all of it.
        kind: what is counted.
        detail: what exactly.
    """

    where: str
    kind: str
    detail: str = ""


@dataclass
class Checked:
    """What a file holds and what is wrong with it."""

    columns: dict[str, Any]
    rows: int = 0
    chats: list[Chat] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Faults by kind, the most frequent first."""
        return dict(Counter(one.kind for one in self.faults).most_common())


def usual() -> CleaningConfig:
    """Limits for own files: wide, because token limits are the training's to set."""
    return CleaningConfig(
        min_words=1,
        max_words=2000,
        min_response_words=1,
        max_response_words=4000,
        language="any",
        min_letters=0.5,
    )


@dataclass(frozen=True)
class Limits:
    """What rows are held to.

    Attributes:
        answers: what responses must do: comply, decline, any, or none for requests alone.
        cleaning: lengths, language, loops, likeness of duplicates.
        tokenizer: for token lengths and masks; None to leave them.
        max_prompt: tokens of a prompt that training keeps.
        max_response: tokens of a response that training keeps.
        against: evaluation sets, besides those always compared with.
    """

    answers: Answers = "any"
    cleaning: CleaningConfig = field(default_factory=usual)
    tokenizer: Any = None
    max_prompt: int = 512
    max_response: int = 512
    against: Sequence[SourceConfig] = ()


def check(path: str, columns: dict[str, Any], limits: Limits) -> Checked:
    """Look through a file.

    Args:
        path: JSON Lines, JSON, CSV or Parquet.
        columns: options of the source `chats`; the others are guessed from the columns' names.
        limits: what rows are held to.

    Raises:
        UserError: no such file, a file that cannot be read at all, or no column of requests.
    """
    options = chats_options(path, columns)
    source = Chats(**options)  # type: ignore[arg-type]
    found = Checked({name: value for name, value in options.items() if name != "path" and value is not None})
    broken: list[UserError] = []
    rows = read_rows(path, broken=broken.append)
    found.faults += [_parsed(error) for error in broken]
    found.rows = len(rows) + len(broken)
    places: list[str] = []
    for number, row in enumerate(rows):
        try:
            chat = source.chat_of(number, row)
        except UserError as error:
            found.faults.append(_parsed(error))
            continue
        found.chats.append(chat)
        places.append(row.where)
    if limits.answers == "any" and all(chat.response is None for chat in found.chats):
        limits = replace(limits, answers="none")
    _look(found, places, limits)
    order = {one: at for at, one in enumerate(found.faults)}
    found.faults.sort(key=lambda one: (_line(one.where), order[one]))
    return found


def _look(found: Checked, places: Sequence[str], limits: Limits) -> None:
    likes = Overlap(limits.against).of(found.chats)
    for chat, where, like in zip(found.chats, places, likes, strict=True):
        faults = chain(
            _turns(chat),
            [fault(chat, limits.cleaning, limits.answers)],
            _tokens(chat, limits),
            [("like an evaluation prompt", like)] if like else [],
        )
        found.faults += [Fault(where, kind, detail) for kind, detail in faults if kind]
    texts = [text_of(chat, limits.answers) for chat in found.chats]
    groups = list(map(pictures_of, found.chats))
    for one in duplicates(texts, limits.cleaning.near, groups=groups):
        kind = "duplicate" if one.likeness == 1 else "near duplicate"
        first = places[one.of].rpartition(", ")[2]
        found.faults.append(Fault(places[one.at], kind, f"of {first}, likeness {one.likeness:.2f}"))
    found.faults += _balance(found.chats, places)


def _turns(chat: Chat) -> Iterator[tuple[str, str]]:
    roles = [turn.role for turn in chat.messages]
    told = roles[1:] if roles[0] == "system" else roles
    wanted = ["user" if at % 2 == 0 else "assistant" for at in range(len(told))]
    if told != wanted:
        yield "roles", f"{', '.join(roles)}: after a system turn, user and assistant must alternate"
    if any(not turn.content.strip() for turn in chat.messages[:-1]):
        yield "empty turn", "a turn before the request has no text"


def _tokens(chat: Chat, limits: Limits) -> Iterator[tuple[str, str]]:
    """Lengths in tokens, and whether the mask leaves anything."""
    if limits.tokenizer is None:
        return
    try:
        prompt = len(render_prompt(chat, limits.tokenizer))
        if prompt > limits.max_prompt:
            yield "prompt is cut", f"{prompt} tokens, training keeps {limits.max_prompt}"
        if chat.response is None:
            return
        response = len(encode(limits.tokenizer, chat.response)) if chat.response else 0
        if response > limits.max_response:
            yield "response is cut", f"{response} tokens, training keeps {limits.max_response}"
        example = tokenise(
            chat,
            limits.tokenizer,
            max_prompt=limits.max_prompt,
            max_response=limits.max_response,
            mask="response",
        )
        if not any(example.mask):
            yield "nothing counts", "the mask selects no token of the response"
    except UserError as error:
        yield "chat template", str(error)


def _balance(chats: Sequence[Chat], places: Sequence[str]) -> list[Fault]:
    counts = Counter(chat.category for chat in chats if chat.category)
    if len(counts) < 2:
        return []
    name, most = counts.most_common(1)[0]
    middle = median(counts.values())
    if most <= UNBALANCED * middle:
        return []
    file = re.sub(r", (?:line|record|row) \d+$", "", places[0])
    return [Fault(file, "unbalanced", f"category {name!r} has {most} rows, the median category {middle:g}")]


def _parsed(error: UserError) -> Fault:
    where, _, detail = error.problem.partition(": ")
    return Fault(where, "unreadable", detail or error.problem)


def _line(where: str) -> int:
    found = re.search(r"(?:line|record|row) (\d+)", where)
    return int(found[1]) if found else 10**12
