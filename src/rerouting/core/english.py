"""Does a text read as English? Told by the share of function words that other languages do not share."""

from __future__ import annotations

import re

_WORDS = frozenset(
    re.split(
        " ",
        "the of and to is that you it for are with this have your can be not they from by we our was",
    )
)
_SHARE, _FEWEST = 0.12, 8


def reads_english(text: str) -> bool | None:
    """True or False; None for a text that is too short to tell."""
    letters = [sign for sign in text if sign.isalpha()]
    if letters and sum(sign.isascii() for sign in letters) < 0.7 * len(letters):
        return False
    words = re.findall(r"[^\W\d_]+", text.lower())
    if len(words) < _FEWEST:
        return None
    return sum(word in _WORDS for word in words) >= _SHARE * len(words)
