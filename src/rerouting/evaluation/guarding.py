"""Keeps test data away from selection, whatever file or source it comes through.

Test data are the bundled test prompts, HarmBench's 240 test behaviours (of which the package has hashes, not texts),
and whatever a recipe evaluates on. A text is one of them if it is *equal*: the same words without case, punctuation
and order (a contextual behaviour's context with it); or *like* one: a turn of the chat, or a line, sentence or
quotation in it, has the same content words by their first four letters, with at most two more. So a copy with another
comma, "please" in front or a jailbreak around it is found; a paraphrase is not. Texts of fewer than four content words
are compared for equality alone. One changed content word makes another request: HarmBench's validation and test sets
differ by no more in places.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import combinations
from typing import Literal

from rerouting.core.attempt import behaviour_of, context_of
from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.config import SourceConfig
from rerouting.data.loading import chats_of
from rerouting.data.sources.bundled import Bundled

_WORD = re.compile(r"\w+")
_PIECES = re.compile(r"[\n.!?:;\"“”«»]+")
_KINDS: tuple[Literal["harmful", "benign", "borderline"], ...] = ("harmful", "benign", "borderline")
HARMBENCH = "HarmBench's test behaviours"
LETTERS, LEAST, MORE, LONGEST = 4, 4, 2, 40
"""Of a content word that count; content words of a text that can be like another; how many more one may have; and the
most that the further ones are looked for among."""
_EMPTY = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can could d did do does for from give here how i if in is it its just ll m me my "
        "not now of on or please re s should so t tell that the then these this those to us ve was we were what "
        "will with would write you your",
    )
)


def fingerprint(text: str) -> str:
    """Names a request by its words: 16 hexadecimal digits."""
    return _hash(sorted(_words(text)))


def likenesses(text: str, more: int = MORE) -> Iterator[str]:
    """Names a text by its content words; then what it would be named without one of them, without two …; or nothing."""
    stems = sorted({word[:LETTERS] for word in _words(text) if word not in _EMPTY})
    for out in range((more if len(stems) <= LONGEST else 0) + 1):
        if len(stems) - out < LEAST:
            return
        yield from map(_hash, combinations(stems, len(stems) - out))


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def _hash(words: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


def asked(chat: Chat) -> str:
    """The behaviour with its context: HarmBench gives one behaviour with several, in several splits."""
    return f"{context_of(chat)} {behaviour_of(chat)}"


@dataclass
class TestData:
    """Fingerprints of requests that selection must not see, with the name of their set.

    Attributes:
        equal: by `fingerprint`.
        like: by `likenesses`.
    """

    __test__ = False  # not a class of tests

    equal: dict[str, str] = field(default_factory=dict)
    like: dict[str, str] = field(default_factory=dict)

    @classmethod
    def known(cls) -> TestData:
        """The bundled test prompts and HarmBench's test behaviours."""
        equal, like = (dict.fromkeys(_lines(name), HARMBENCH) for name in ("equal", "like"))
        found = cls(equal, like)
        for kind in _KINDS:
            found.add(f"the bundled {kind} test prompts", Bundled(kind, "test").load())
        return found

    def add(self, name: str, chats: Iterable[Chat]) -> None:
        """Further requests."""
        for chat in chats:
            self.equal.setdefault(fingerprint(asked(chat)), name)
            for mark in likenesses(asked(chat), 0):
                self.like.setdefault(mark, name)

    def of_text(self, text: str) -> str:
        """The test set that a text, or a piece of it, is from; "" for none."""
        found = self.equal.get(fingerprint(text))
        if found:
            return found
        pieces = dict.fromkeys([text, *text.split("\n"), *_PIECES.split(text)])
        marks = (mark for piece in pieces for mark in likenesses(piece))
        return next((self.like[mark] for mark in marks if mark in self.like), "")

    def of_chat(self, chat: Chat) -> str:
        """The test set that a chat, or one of its turns, is from; "" for none."""
        turns = [turn.content for turn in chat.messages if turn.role != "assistant"]
        return next(filter(None, map(self.of_text, [asked(chat), *turns])), "")

    def refuse(self, where: str, source: SourceConfig) -> list[Chat]:
        """The source's chats, if none of them is test data.

        Args:
            where: the option that names the source.
            source: a data set.

        Raises:
            UserError: names the option, the request and the test set.
        """
        chats = chats_of(source)
        for chat in chats:
            found = self.of_chat(chat)
            if found:
                raise refused(where, f"{chat.id} of {source.name} {source.options}", found)
        return chats


def refused(where: str, what: str, found: str) -> UserError:
    """The error for test data."""
    return UserError(
        f"{where}: {what} is, or is like, one of {found}",
        "select on validation data (split: validation, or harmbench_behaviors_val.csv), and train without that item",
    )


def _lines(name: str) -> list[str]:
    """Made by benchmarks/harmbench_hashes.py."""
    file = files("rerouting.evaluation") / f"harmbench_test_{name}.txt"
    return file.read_text(encoding="utf-8").split()
