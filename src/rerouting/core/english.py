"""Does a text read as English? Told by the share of function words that other languages do not share."""

from __future__ import annotations

import re

_WORDS = {
    "the",
    "of",
    "and",
    "to",
    "is",
    "that",
    "you",
    "it",
    "for",
    "are",
    "with",
    "this",
    "have",
    "your",
    "can",
    "be",
    "not",
    "they",
    "from",
    "by",
    "we",
    "our",
    "was",
}
_SHARE, _FEWEST = 0.12, 8


def is_latin(text: str) -> bool:
    """Whether at least 0.7 of a text's letters are plain Latin ones; True for a text without letters."""
    letters = [sign for sign in text if sign.isalpha()]
    return sum(sign.isascii() for sign in letters) >= 0.7 * len(letters)


def reads_english(text: str) -> bool | None:
    """True or False; None for a text that is too short to tell."""
    if not is_latin(text):
        return False
    words = re.findall(r"[^\W\d_]+", text.lower())
    if len(words) < _FEWEST:
        return None
    return sum(word in _WORDS for word in words) >= _SHARE * len(words)
