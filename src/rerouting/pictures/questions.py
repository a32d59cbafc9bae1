"""Questions about drawn pictures, with their answers."""

from __future__ import annotations

import random
from collections.abc import Mapping

_ASKED: Mapping[str, tuple[str, ...]] = {
    "shape": ("What shape is in the picture?", "Which shape do you see?"),
    "colour": ("What colour is the {thing}?", "Which colour does the {thing} have?"),
    "count": ("How many {shape}s are there?", "How many shapes are in the picture?"),
    "digit": ("Which digit is in the picture?", "What digit do you see?"),
    "word": ("What does the sign say?", "Which word is on the sign?"),
    "tallest": ("What colour is the tallest bar?", "Which bar of the chart is the tallest?"),
    "object": ("What is in the scene?", "What do you see on the ground?"),
    "time": ("Is it day or night?", "What time of day does the picture show, day or night?"),
}


def question(facts: Mapping[str, str], fact: str, chance: random.Random) -> tuple[str, str]:
    """A question about one fact of a picture, and the answer, one word."""
    thing = facts.get("shape") or ("digit" if "digit" in facts else "sign")
    shape = "crosse" if facts.get("shape") == "cross" else facts.get("shape", "")
    asked = chance.choice(_ASKED[fact]).format(thing=thing, shape=shape)
    return asked, shown(fact, facts[fact])


def shown(fact: str, value: str) -> str:
    """A fact's value as answers write it."""
    return value.upper() if fact == "word" else value.capitalize()


def any_question(facts: Mapping[str, str], chance: random.Random) -> tuple[str, str, str]:
    """A fact of a picture, a question about it, and the answer."""
    fact = chance.choice(sorted(facts))
    return (fact, *question(facts, fact, chance))


def is_right(answer: str, wanted: str) -> bool:
    """Whether an answer's first word is the one that was wanted."""
    words = answer.replace(".", " ").replace(",", " ").split()
    return bool(words) and words[0].casefold() == wanted.casefold()
