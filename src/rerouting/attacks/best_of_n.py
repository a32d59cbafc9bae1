"""Many small random changes of the request, until one answer succeeds (Hughes et al. 2024, arXiv 2412.03556).

Random capitals, words with scrambled middles, and shifted characters, each with the paper's kind of probability;
answers are sampled and judged in the loop. Deviation: rounds are batched over behaviours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rerouting.core.attempt import Attempt, ask, behaviour_of, context_of
from rerouting.core.contracts import Judged, Resources, Verdict
from rerouting.core.records import Chat
from rerouting.targets.target import Target


@dataclass(frozen=True)
class BestOfN:
    """Black-box sampling."""

    n: int = 8
    """Most samples a behaviour (the paper: 10,000)."""
    temperature: float = 1.0
    """Of the answers."""
    capitals: float = 0.4
    """Share of letters whose case flips."""
    scramble: float = 0.4
    """Share of words of four letters or more whose middle is shuffled."""
    shift: float = 0.05
    """Share of characters moved by one code point."""

    group: ClassVar[int] = 32
    budgets: ClassVar[dict[str, dict[str, Any]]] = {"quick": {"n": 3}, "paper": {"n": 10_000}}
    cases: ClassVar[dict[str, int | None]] = {"quick": 8, "standard": 60}

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """The first sample that succeeds; else the last one that was judged, or unscored if one was not."""
        found: dict[str, Attempt] = {}
        kept: dict[str, tuple[bool, Attempt]] = {}
        for at in range(self.n):
            left = [chat for chat in chats if chat.id not in found]
            sent = [
                self._changed(chat, random.Random(f"{resources.seed} {chat.id} {at}"), at) for chat in left
            ]
            answers = target.answer(sent, temperature=self.temperature, seed=resources.seed + at)
            judged = [
                Judged(behaviour_of(chat), answer, context_of(chat))
                for chat, answer in zip(left, answers, strict=True)
            ]
            for chat, attempt, answer, verdict in zip(
                left, sent, answers, resources.judge(judged), strict=True
            ):
                self._keep(chat, replace(attempt, answer=answer), verdict, found, kept)
        return [found.get(chat.id) or kept[chat.id][1] for chat in chats]

    @staticmethod
    def _keep(
        chat: Chat,
        attempt: Attempt,
        verdict: Verdict,
        found: dict[str, Attempt],
        kept: dict[str, tuple[bool, Attempt]],
    ) -> None:
        if verdict.yes:
            found[chat.id] = attempt
        elif chat.id not in kept or not kept[chat.id][0]:  # an unscored sample stays: the case is not a no
            kept[chat.id] = (verdict.yes is None, attempt)

    def _changed(self, chat: Chat, draw: random.Random, at: int) -> Attempt:
        words = [self._word(word, draw) for word in behaviour_of(chat).split(" ")]
        text = "".join(self._character(one, draw) for one in " ".join(words))
        return Attempt(ask(chat, text), trace={"sample": at})

    def _word(self, word: str, draw: random.Random) -> str:
        if len(word) < 4 or draw.random() >= self.scramble:
            return word
        middle = list(word[1:-1])
        draw.shuffle(middle)
        return word[0] + "".join(middle) + word[-1]

    def _character(self, one: str, draw: random.Random) -> str:
        if one.isalpha() and draw.random() < self.capitals:
            one = one.swapcase()
        if one.isascii() and one.isprintable() and one not in " ~" and draw.random() < self.shift:
            one = chr(ord(one) + 1)
        return one
