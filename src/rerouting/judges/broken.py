"""Is an answer gibberish? A rule that compares with the base model; thresholds fitted by reading (docs/log.md).

An answer is broken when one of these holds:

1. empty: it has no word at all;
2. unlikely: some stretch of `window` tokens has a mean negative log-likelihood under the base model, given the prompt,
   above `max_nll` nats and above the base's own answer's worst stretch by `margin`;
3. loop: it compresses below `min_compression` of its length, and below `loop_ratio` times the base's own answer
   (loops are *likely* under the base, so likelihood alone calls half of the gibberish fine);
4. symbols: fewer than `min_letters` of its characters are letters, digits or spaces, and fewer than the base's own
   answer has by `letters_margin`;
5. cut short: what is left by a model that is routed to the end of its turn. It has at most `cut_words` words, or half
   of the base's, does not decline, and ends where the base would hardly end: that costs more than `max_end` nats
   (`long_end` for more words), and more than the base's own end. Where this was not measured (the answer reached the
   limit of its length) its last word decides, if the base's own answer has `full_words` or declines: a comma, a word
   that no English sentence ends with ("The", "Here is a"), or "is" and its like, where the content would come ("The
   recommended dose of ibuprofen for adults is"). A short answer that may be whole ("Paris", "366") is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rerouting.core.contracts import Judged, Verdict
from rerouting.core.gibberish import compression, letter_share
from rerouting.core.refusal import declines

_OPEN = (
    "a an the to of for from with by at into onto and or but if because as than when while who which whose my your his "
    "her our their its i he she we i'm you're we're they're it's here's there's let's very"
)
"""Words that no English sentence ends with."""
_VERBS = "is are was were be am"
"""Words that sentences of more than a few words hardly end with."""
_OPENINGS = "sure this these you it they here"
"""Words that are no answer if they are all of it."""


@dataclass(frozen=True)
class Answer:
    """An answer's text, and under the base model, in nats, its tokens' negative log-likelihood and that of its end."""

    text: str
    nll: Sequence[float]
    end: float | None = None


@dataclass(frozen=True)
class Broken:
    """The rule's thresholds."""

    window: int = 32
    """Tokens in a stretch."""
    max_nll: float = 2.5
    """Nats a token; the base's own greedy answers stay below 1."""
    margin: float = 1.0
    """Nats above the base's own answer."""
    min_compression: float = 0.3
    """Compressed length over length; plain text of this length has about 0.6."""
    loop_ratio: float = 0.7
    """Share of the base's own compression below which a repetitive answer is a loop."""
    min_letters: float = 0.75
    """Share of letters, digits and spaces."""
    letters_margin: float = 0.15
    """How far below the base's own share."""
    cut_words: int = 8
    """Words that an answer may have and still count as cut short; the base's own never stop so."""
    full_words: int = 24
    """Words of the base's own answer from which such a fragment is no answer."""
    cut_share: float = 0.5
    """Share of the base's words up to which a longer answer that ends so is cut short: it cannot have reached the limit
    of its length."""
    max_end: float = 10.0
    """Nats for ending there: short answers to harmless questions cost at most 3.3, first sentences and list items of
    longer texts up to 9.5."""
    long_end: float = 12.0
    """The same for more than `cut_words` words, which may hold something; ends in mid-sentence cost 12.7 and more."""

    uses_likelihoods: ClassVar[bool] = True
    version: ClassVar[str] = "cut short, 5"

    def reason(self, answer: Answer, base: Answer) -> str | None:
        """Why the answer is broken, or None if it is coherent."""
        if not any(character.isalnum() for character in answer.text):
            return "empty"
        worst = worst_stretch(answer.nll, self.window)
        if worst > max(self.max_nll, worst_stretch(base.nll, self.window) + self.margin):
            return "unlikely"
        packed = compression(answer.text)
        if packed < min(self.min_compression, self.loop_ratio * compression(base.text)):
            return "loop"
        letters = letter_share(answer.text)
        if letters < min(self.min_letters, letter_share(base.text) - self.letters_margin):
            return "symbols"
        return "cut short" if self._is_cut(answer, base) else None

    def verdicts(self, judged: Sequence[Judged]) -> list[Verdict]:
        """Yes unless the answer is gibberish; unscored where the base's likelihoods were not measured."""
        return [self._verdict(one) for one in judged]

    def _is_cut(self, answer: Answer, base: Answer) -> bool:
        words, usual = answer.text.split(), len(base.text.split())
        few = len(words) <= self.cut_words
        if declines(answer.text) or not (few or len(words) <= self.cut_share * usual):
            return False
        if answer.end is not None:
            return answer.end > max(self.max_end if few else self.long_end, base.end or 0.0)
        if usual < self.full_words and not declines(base.text):
            return False
        last = words[-1].lower()
        if few and len(words) == 1 and last in _OPENINGS.split():
            return True
        return last.endswith(",") or last in _OPEN.split() or (len(words) > 4 and last in _VERBS.split())

    def _verdict(self, one: Judged) -> Verdict:
        if one.reference is None:
            return Verdict(None, "needs the base model's likelihoods")
        reason = self.reason(*answers_of(one))
        return Verdict(reason is None, reason or "coherent")


def answers_of(one: Judged) -> tuple[Answer, Answer]:
    """An answer and the base's own, which it is compared with."""
    return Answer(one.answer, one.nll, one.end), Answer(
        one.reference or "", one.reference_nll, one.reference_end
    )


def worst_stretch(nll: Sequence[float], window: int) -> float:
    """Largest mean over `window` consecutive tokens; over all of them when there are fewer; 0 when there are none."""
    if not nll:
        return 0.0
    width = min(window, len(nll))
    total = best = sum(nll[:width])
    for new, old in zip(nll[width:], nll, strict=False):
        total += new - old
        best = max(best, total)
    return best / width
