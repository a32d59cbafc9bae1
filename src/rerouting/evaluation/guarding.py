"""Keeps test data away from selection, whatever file or source it comes through.

A request is of a test set if its words are those of one: the bundled test prompts, HarmBench's 240 test behaviours (of
which the package has hashes, not texts: `harmbench_test.txt`), and whatever a recipe evaluates on. Words are compared
without case, punctuation and order, those of a contextual behaviour's context with it, so that a copy with another
comma is found; a paraphrase is not.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from typing import Any, Literal

from rerouting.core.attempt import behaviour_of, context_of
from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.config import SourceConfig
from rerouting.data.loading import chats_of
from rerouting.data.sources.bundled import Bundled

_WORD = re.compile(r"\w+")
_KINDS: tuple[Literal["harmful", "benign", "borderline"], ...] = ("harmful", "benign", "borderline")


def fingerprint(text: str) -> str:
    """Names a request by its words: 16 hexadecimal digits."""
    words = sorted(_WORD.findall(unicodedata.normalize("NFKC", text).lower()))
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


class TestData:
    """Fingerprints of requests that selection must not see, with the name of their set."""

    __test__ = False  # not a class of tests

    def __init__(self, sets: dict[str, Iterable[str]] | None = None) -> None:
        """Start with the bundled test prompts and HarmBench's test behaviours.

        Args:
            sets: further requests by the name of their set.
        """
        self.known = dict.fromkeys(_harmbench(), "HarmBench's test behaviours")
        for kind in _KINDS:
            self.add(f"the bundled {kind} test prompts", map(asked, Bundled(kind, "test").load()))
        for name, requests in (sets or {}).items():
            self.add(name, requests)

    def add(self, name: str, requests: Iterable[str]) -> None:
        """Further requests."""
        for request in requests:
            self.known.setdefault(fingerprint(request), name)

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
            found = self.known.get(fingerprint(asked(chat)))
            if found:
                raise UserError(
                    f"{where}: {chat.id} of {source.name} {source.options} is one of {found}",
                    "select on validation data (split: validation, or harmbench_behaviors_val.csv)",
                )
        return chats


def sources_in(value: Any, where: str) -> Iterator[tuple[str, SourceConfig]]:
    """Every data source in a component's options, with the name of its option."""
    if isinstance(value, SourceConfig):
        yield where, value
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from sources_in(getattr(value, entry.name), f"{where}.{entry.name}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for at, item in enumerate(value):
            yield from sources_in(item, f"{where}[{at}]")


def asked(chat: Chat) -> str:
    """The behaviour with its context: HarmBench gives one behaviour with several, in several splits."""
    return f"{context_of(chat)} {behaviour_of(chat)}"


def _harmbench() -> list[str]:
    """Made by `fingerprint` of `asked` from the behaviours of the authors' harmbench_test.json, in its order."""
    return (files("rerouting.evaluation") / "harmbench_test.txt").read_text(encoding="utf-8").split()
