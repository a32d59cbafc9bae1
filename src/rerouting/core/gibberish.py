"""How repetitive a text is, and how much of it is words: what tells loops and symbol soup from text."""

from __future__ import annotations

import zlib


def compression(text: str) -> float:
    """Length after zlib (header taken off) over length in bytes; 1 for texts too short to tell."""
    raw = text.encode()
    return (len(zlib.compress(raw, 9)) - 8) / len(raw) if len(raw) >= 64 else 1.0


def letter_share(text: str) -> float:
    """Share of letters, digits and white space."""
    return sum(character.isalnum() or character.isspace() for character in text) / max(len(text), 1)
