"""Which rows are, or are like, prompts of a known evaluation set (`evaluation.guarding`), or of sets named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from rerouting.core.conversion import convert
from rerouting.core.records import Chat
from rerouting.data.config import SourceConfig
from rerouting.data.filtering import behaviours, drop_contaminated
from rerouting.data.loading import chats_of
from rerouting.evaluation.guarding import TestData

THRESHOLD = 0.3
"""Sentence BLEU against a named set's behaviour, as in the paper."""


class Overlap:
    """The bundled test prompts and HarmBench's test behaviours (by hash), and further sets (by hash and BLEU)."""

    def __init__(self, against: Sequence[SourceConfig] = ()) -> None:
        """Load the sets.

        Args:
            against: further evaluation sets.

        Raises:
            UserError: one of them is unreadable.
        """
        self.known = TestData.known()
        self.texts: dict[str, str] = {}
        for source in against:
            chats = chats_of(source)
            self.known.add(source.name, chats)
            self.texts |= dict.fromkeys(behaviours(chats), source.name)

    def of(self, chats: Sequence[Chat]) -> list[str]:
        """The evaluation set that each chat is from or like; "" for none."""
        found = [self.known.of_chat(chat) for chat in chats]
        if not self.texts:
            return found
        # Numbered, because ids need not be unique.
        numbered = [replace(chat, id=str(at)) for at, chat in enumerate(chats) if not found[at]]
        for one in drop_contaminated(numbered, list(self.texts), THRESHOLD)[1]:
            found[int(one.chat_id)] = f"{self.texts[one.reference]} (BLEU {one.score:.2f})"
        return found

    def counts(self, chats: Sequence[Chat]) -> dict[str, int]:
        """Chats by the evaluation set that they are from or like."""
        found = Counter(name.partition(" (BLEU")[0] for name in self.of(chats))
        return {name: count for name, count in found.most_common() if name}


def sources_of(given: Sequence[str | dict[str, object]]) -> list[SourceConfig]:
    """Sources named on a command line: names, or mappings with options.

    Raises:
        UserError: something else.
    """
    found: list[SourceConfig] = convert(list(given), list[SourceConfig], "against")
    return found
