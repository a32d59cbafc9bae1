"""Many small random changes of the request, until one answer succeeds (Hughes et al. 2024, arXiv 2412.03556).

Random capitals, words with scrambled middles, and characters moved by one code point, at the paper's rates (its
sigma = 0.4: the square root for the first two, the cube for the last); answers are sampled and judged in the loop.
Deviations: rounds are batched over behaviours; a contextual behaviour's text is left as it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from rerouting.core.attempt import Attempt, ask, behaviour_of, context_of
from rerouting.core.contracts import Judged, Resources, Verdict
from rerouting.core.records import Chat
from rerouting.targets.target import Target


@dataclass
class _Record:
    """One behaviour's samples: what the judge said of each, and those that are kept."""

    chat: Chat
    verdicts: dict[str, int] = field(default_factory=lambda: {"yes": 0, "no": 0, "unscored": 0})
    kept: list[Attempt] = field(default_factory=list)

    def note(self, attempt: Attempt, verdict: Verdict, most: int) -> None:
        """Count a sample, and keep it; of those that failed no more than `most`."""
        name = {True: "yes", False: "no", None: "unscored"}[verdict.yes]
        self.verdicts[name] += 1
        if name != "no" or self.verdicts["no"] <= most:
            self.kept.append(attempt)

    def result(self) -> list[Attempt]:
        """The kept samples, with the counts on record."""
        if not self.kept:
            return [Attempt(self.chat, failure="no sample was asked for (n is below 1)")]
        counts = {"samples": sum(self.verdicts.values()), "verdicts": self.verdicts}
        return [replace(one, trace=one.trace | counts) for one in self.kept]


@dataclass(frozen=True)
class BestOfN:
    """Black-box sampling."""

    n: int = 8
    """Most samples a behaviour (the paper: 10,000)."""
    temperature: float = 0.7
    """Of the answers (the paper: 1; a small model writes little sense there)."""
    capitals: float = 0.632
    """Share of letters whose case flips."""
    scramble: float = 0.632
    """Share of words of four letters or more whose middle is shuffled."""
    shift: float = 0.064
    """Share of printable ASCII characters moved by one code point, up or down."""
    keep: int = 100
    """Failed samples of a behaviour that are kept on record, at most; at least one."""

    group: ClassVar[int] = 32
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"n": 3},
        "paper": {"n": 10_000, "temperature": 1.0},
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 4, "standard": 24, "paper": None}

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """Every sample up to the first that succeeds."""
        records = [_Record(chat) for chat in chats]
        for at in range(self.n):
            left = [record for record in records if not record.verdicts["yes"]]
            if not left:
                break
            resources.progress(f"best_of_n: sample {at + 1} of {self.n}, {len(left)} behaviours")
            sent = [
                self._changed(one.chat, random.Random(f"{resources.seed} {one.chat.id} {at}"), at)
                for one in left
            ]
            answers = target.answer(sent, temperature=self.temperature, seed=resources.seed + at)
            judged = [
                Judged(
                    behaviour_of(record.chat),
                    answer,
                    context_of(record.chat),
                    sent=attempt.chat,
                    temperature=self.temperature,
                )
                for record, attempt, answer in zip(left, sent, answers, strict=True)
            ]
            verdicts = resources.judge(judged)
            for record, attempt, answer, verdict in zip(left, sent, answers, verdicts, strict=True):
                record.note(attempt.answered(answer), verdict, max(1, self.keep))
        return [attempt for record in records for attempt in record.result()]

    def _changed(self, chat: Chat, draw: random.Random, at: int) -> Attempt:
        words = [self._word(word, draw) for word in behaviour_of(chat).split(" ")]
        text = "".join(self._character(one, draw) for one in " ".join(words))
        return Attempt(ask(chat, text), trace={"sample": at, "temperature": self.temperature})

    def _word(self, word: str, draw: random.Random) -> str:
        if len(word) < 4 or draw.random() >= self.scramble:
            return word
        middle = list(word[1:-1])
        draw.shuffle(middle)
        return word[0] + "".join(middle) + word[-1]

    def _character(self, one: str, draw: random.Random) -> str:
        if one.isalpha() and draw.random() < self.capitals:
            one = one.swapcase()
        if " " <= one <= "~" and draw.random() < self.shift:
            moved = chr(ord(one) + draw.choice((-1, 1)))
            return moved if " " <= moved <= "~" else one
        return one
