"""The contamination filter: training items too like an evaluation behaviour are dropped.

Source: arXiv 2406.04313: items with BLEU > 0.3 against HarmBench's standard behaviours are
removed. Which BLEU it was is not known to us. Here: sacrebleu's sentence BLEU (tokenizer 13a, up to
4-grams, effective order, exponential smoothing) without regard to case, the training prompt as hypothesis,
one behaviour as reference; of several user turns the most alike counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message

_ORDER = 4


@dataclass(frozen=True)
class Dropped:
    """A training item that was removed, and why.

    Attributes:
        chat_id: the item.
        prompt: its user turn that is too alike.
        reference: the evaluation behaviour most like it.
        score: sentence BLEU of the two, 0 to 1.
    """

    chat_id: str
    prompt: str
    reference: str
    score: float


def drop_contaminated(
    chats: Sequence[Chat], references: Sequence[str], threshold: float = 0.3
) -> tuple[list[Chat], list[Dropped]]:
    """Drop every chat with a user turn whose BLEU against any reference is above the threshold.

    Returns:
        The chats that stay, in order, and the dropped ones with their closest reference.

    Raises:
        UserError: a threshold outside 0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise UserError(
            f"the BLEU threshold is {threshold}", "BLEU runs from 0 to 1 here; the paper uses 0.3"
        )
    index, kept, dropped = _References(references), [], []
    for chat in chats:
        found = [
            (turn.content, index.closest(turn.content, threshold))
            for turn in chat.messages
            if turn.role == "user"
        ]
        above = [(match[0], turn, match[1]) for turn, match in found if match is not None]
        if above:
            score, turn, reference = max(above)
            dropped.append(Dropped(chat.id, turn, reference, score))
        else:
            kept.append(chat)
    return kept, dropped


def drop_like_calls(
    chats: Sequence[Chat], references: Sequence[str], threshold: float = 0.1
) -> tuple[list[Chat], list[Dropped]]:
    """Drop every chat whose call's text (`meta["call_text"]`, name and values) is too alike to one of the references.

    Returns:
        The chats that stay, in order, and the dropped ones; chats without a call stay.

    Raises:
        UserError: a threshold outside 0 to 1.
    """
    calls = [Chat(chat.id, (Message("user", str(chat.meta.get("call_text", ""))),)) for chat in chats]
    kept, dropped = drop_contaminated(calls, references, threshold)
    stay = set(map(id, kept))
    return [chat for chat, call in zip(chats, calls, strict=True) if id(call) in stay], dropped


def calls_of(chats: Sequence[Chat]) -> list[str]:
    """The texts of the chats' calls, of those that have any."""
    return [str(chat.meta["call_text"]) for chat in chats if chat.meta.get("call_text")]


def behaviours(chats: Sequence[Chat]) -> list[str]:
    """The texts to filter against: each chat's behaviour without its context where the source says which
    it is (HarmBench's contextual ones), else its request; empty ones are left out.
    """
    texts = [str(chat.meta.get("behaviour", chat.request)) for chat in chats]
    return [text for text in texts if text.strip()]


def sentence_bleu(prompt: str, reference: str) -> float:
    """Sentence BLEU, 0 to 1, as the filter measures it."""
    return float(_BLEU.sentence_score(prompt, [reference]).score) / 100


_BLEU = BLEU(lowercase=True, effective_order=True)


class _References:
    """References indexed by word, so that BLEU is computed only where it can exceed the threshold.

    The bound: a matched n-gram begins with a matched word, so the clipped matches of order n are at most
    those of order 1, c. They are also at most the number of n-grams, h − n + 1. Smoothing replaces zero
    matches by at most one half, which is below c wherever BLEU is not 0. Hence BLEU ≤ brevity · (∏ₙ min(c, h
    − n + 1) / (h − n + 1))^(1/N), N = min(4, h).
    """

    def __init__(self, references: Sequence[str]) -> None:
        self.texts = sorted(set(references))
        words = [_words(text) for text in self.texts]
        self.lengths = np.array([len(item) for item in words], dtype=np.float64)
        places: dict[str, list[tuple[int, int]]] = {}
        for number, item in enumerate(words):
            for word, count in Counter(item).items():
                places.setdefault(word, []).append((number, count))
        self.places: dict[str, NDArray[np.int64]] = {
            word: np.array(found).T for word, found in places.items()
        }

    def closest(self, prompt: str, threshold: float) -> tuple[float, str] | None:
        """The score and text of the most similar reference above the threshold; None if there is none."""
        best: tuple[float, str] | None = None
        bounds = self._bounds(_words(prompt))
        for number in np.argsort(-bounds, kind="stable"):
            if bounds[number] <= (best[0] if best else threshold) - 1e-9:
                break
            score = sentence_bleu(prompt, self.texts[number])
            if score > threshold and (best is None or (score, self.texts[number]) > best):
                best = (score, self.texts[number])
        return best

    def _bounds(self, words: list[str]) -> NDArray[np.float64]:
        """An upper bound of the prompt's BLEU against each reference (R,)."""
        matches = np.zeros(len(self.texts))
        if not words:
            return matches
        for word, count in Counter(words).items():
            if word in self.places:
                numbers, counts = self.places[word]
                matches[numbers] += np.minimum(counts, count)
        logarithms = np.zeros(len(self.texts))
        with np.errstate(divide="ignore"):
            orders = range(1, min(_ORDER, len(words)) + 1)
            for order in orders:
                total = len(words) - order + 1
                logarithms += np.log(np.minimum(matches, total) / total) / len(orders)
        brevity = np.minimum(0.0, 1 - self.lengths / len(words))
        return np.exp(logarithms + brevity)


def _words(text: str) -> list[str]:
    words: list[str] = _BLEU._preprocess_segment(text).split()
    return words
