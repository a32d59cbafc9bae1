"""Does a text read as English? Told by the share of English function words; for texts of ten words or more."""

from __future__ import annotations

import re

_WORDS = frozenset(
    re.split(
        r"\s+",
        "the of and to a in is it you that he was for on are with as i his they be at one have this from or had by but "
        "not what all were we when your can said there use an each which she do how their if will up other about out "
        "many then them these so some her would make like him into time has more no way could my than who its now me "
        "did our",
    )
)
_SHARE, _FEWEST = 0.15, 10


def reads_english(text: str) -> bool | None:
    """True or False; None for a text that is too short to tell."""
    letters = [sign for sign in text if sign.isalpha()]
    if letters and sum(sign.isascii() for sign in letters) < 0.7 * len(letters):
        return False
    words = re.findall(r"[^\W\d_]+", text.lower())
    if len(words) < _FEWEST:
        return None
    return sum(word in _WORDS for word in words) >= _SHARE * len(words)
