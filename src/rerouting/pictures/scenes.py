"""Small drawn pictures whose content is known: shapes, counts, digits, signs, charts, scenes.

Ours. A picture follows from its split and number alone, so it needs no file; what is on it is a dictionary of facts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIZE = 96
"""Width and height in pixels."""
COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 150, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 205, 30),
    "orange": (240, 130, 20),
    "purple": (130, 50, 160),
    "black": (20, 20, 20),
    "pink": (245, 130, 180),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
NUMBERS = ("one", "two", "three", "four", "five")
DIGITS = tuple("0123456789")
WORDS = (
    *("stop", "exit", "open", "shut", "fire", "bank", "taxi", "milk", "book", "fish", "door", "park"),
    *("sale", "help", "cafe", "shop", "road", "farm", "gold", "jazz", "kiwi", "yoga", "zoo", "bus"),
)
OBJECTS = ("house", "tree", "car", "boat", "cup")
TIMES = ("day", "night")
FACTS: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "count": NUMBERS,
    "digit": DIGITS,
    "word": WORDS,
    "tallest": tuple(COLOURS),
    "object": OBJECTS,
    "time": TIMES,
}
"""What can be known of a picture, with all the values that it can have."""
Pen = ImageDraw.ImageDraw


@dataclass(frozen=True)
class Scene:
    """A picture and what is on it."""

    picture: Image.Image
    facts: dict[str, str]


def scene(split: str, number: int) -> Scene:
    """Draw the picture of this split and number, RGB, 96 × 96."""
    chance = random.Random(f"{split}/{number}")
    kinds = tuple(_KINDS)
    kind = kinds[number % len(kinds)]
    background = (*(chance.randint(205, 255) for _ in range(3)),)
    picture = Image.new("RGB", (SIZE, SIZE), background)
    facts = _KINDS[kind](ImageDraw.Draw(picture), chance)
    return Scene(picture, facts)


def _shape(pen: Pen, chance: random.Random) -> dict[str, str]:
    name, colour = chance.choice(SHAPES), chance.choice(tuple(COLOURS))
    half = chance.uniform(14, 32)
    x, y = (chance.uniform(half + 2, SIZE - half - 2) for _ in range(2))
    _drawn(pen, name, colour, x, y, half)
    return {"shape": name, "colour": colour}


def _many(pen: Pen, chance: random.Random) -> dict[str, str]:
    name, colour = chance.choice(SHAPES), chance.choice(tuple(COLOURS))
    count = chance.randint(1, len(NUMBERS))
    cells = chance.sample([(column, row) for column in range(3) for row in range(3)], count)
    for column, row in cells:
        half = chance.uniform(9, 13)
        x, y = (16 + 32 * at + chance.uniform(-2, 2) for at in (column, row))
        _drawn(pen, name, colour, x, y, half)
    return {"shape": name, "colour": colour, "count": NUMBERS[count - 1]}


def _digit(pen: Pen, chance: random.Random) -> dict[str, str]:
    digit, colour = chance.choice(DIGITS), chance.choice(tuple(COLOURS))
    font = ImageFont.load_default(chance.randint(44, 76))
    x, y = (SIZE / 2 + chance.uniform(-12, 12) for _ in range(2))
    pen.text((x, y), digit, COLOURS[colour], font, anchor="mm")
    return {"digit": digit, "colour": colour}


def _sign(pen: Pen, chance: random.Random) -> dict[str, str]:
    word, colour = chance.choice(WORDS), chance.choice(tuple(COLOURS))
    middle = SIZE / 2 + chance.uniform(-16, 16)
    pen.rounded_rectangle((6, middle - 22, 90, middle + 22), 6, COLOURS[colour])
    pen.line((48, middle + 22, 48, SIZE), (90, 90, 90), 4)
    ink = (255, 255, 255) if colour not in ("yellow", "pink") else (10, 10, 10)
    font = ImageFont.load_default(chance.randint(23, 27))
    pen.text((48 + chance.uniform(-3, 3), middle), word.upper(), ink, font, anchor="mm")
    return {"word": word, "colour": colour}


def _chart(pen: Pen, chance: random.Random) -> dict[str, str]:
    colours = chance.sample(tuple(COLOURS), 3)
    heights = chance.sample(range(14, 78, 12), 3)
    pen.line((10, 6, 10, 88), (0, 0, 0), 2)
    pen.line((10, 88, 92, 88), (0, 0, 0), 2)
    for at, (colour, height) in enumerate(zip(colours, heights, strict=True)):
        left = 18 + 25 * at
        pen.rectangle((left, 87 - height, left + 17, 87), COLOURS[colour])
    return {"tallest": colours[heights.index(max(heights))]}


def _place(pen: Pen, chance: random.Random) -> dict[str, str]:
    time, thing, colour = chance.choice(TIMES), chance.choice(OBJECTS), chance.choice(tuple(COLOURS))
    ground = chance.randint(58, 70)
    pen.rectangle((0, 0, SIZE, ground), (150, 205, 245) if time == "day" else (15, 20, 60))
    pen.rectangle((0, ground, SIZE, SIZE), (120, 180, 90) if time == "day" else (30, 60, 40))
    left = chance.randint(6, 70)
    if time == "day":
        pen.ellipse((left, 5, left + 18, 23), (255, 225, 60))
    else:
        pen.ellipse((left, 5, left + 14, 19), (235, 235, 225))
        pen.point([(chance.randrange(SIZE), chance.randrange(50)) for _ in range(25)], (255, 255, 255))
    _THINGS[thing](pen, chance.randint(30, 66), ground + 8, COLOURS[colour])
    return {"object": thing, "time": time}


_KINDS: dict[str, Callable[[Pen, random.Random], dict[str, str]]] = {
    "shape": _shape,
    "many": _many,
    "digit": _digit,
    "sign": _sign,
    "chart": _chart,
    "place": _place,
}
"""How many kinds there are; a picture's number says which it is."""
Ink = tuple[int, int, int]


def _house(pen: Pen, x: int, y: int, ink: Ink) -> None:
    pen.rectangle((x - 18, y - 26, x + 18, y), ink, (0, 0, 0))
    pen.polygon([(x - 23, y - 26), (x + 23, y - 26), (x, y - 46)], (110, 60, 40), (0, 0, 0))
    pen.rectangle((x - 4, y - 14, x + 4, y), (80, 50, 30))


def _tree(pen: Pen, x: int, y: int, ink: Ink) -> None:
    pen.rectangle((x - 3, y - 24, x + 3, y), (100, 65, 35))
    pen.ellipse((x - 15, y - 50, x + 15, y - 18), (30, 120, 40), (0, 60, 0))


def _car(pen: Pen, x: int, y: int, ink: Ink) -> None:
    pen.polygon(
        [(x - 12, y - 14), (x - 7, y - 25), (x + 9, y - 25), (x + 15, y - 14)], (190, 220, 240), (0, 0, 0)
    )
    pen.rectangle((x - 24, y - 15, x + 24, y - 3), ink, (0, 0, 0))
    for wheel in (x - 13, x + 13):
        pen.ellipse((wheel - 6, y - 8, wheel + 6, y + 4), (15, 15, 15), (200, 200, 200))


def _boat(pen: Pen, x: int, y: int, ink: Ink) -> None:
    pen.polygon([(x - 24, y - 12), (x + 24, y - 12), (x + 14, y), (x - 14, y)], ink, (0, 0, 0))
    pen.line((x, y - 12, x, y - 48), (60, 40, 20), 3)
    pen.polygon([(x + 2, y - 47), (x + 2, y - 16), (x + 22, y - 16)], (250, 250, 250), (0, 0, 0))


def _cup(pen: Pen, x: int, y: int, ink: Ink) -> None:
    pen.ellipse((x + 8, y - 26, x + 26, y - 8), None, ink, 4)
    pen.rectangle((x - 16, y - 32, x + 14, y - 2), ink, (0, 0, 0))
    pen.ellipse((x - 16, y - 36, x + 14, y - 28), (245, 245, 245), (0, 0, 0))


_THINGS: dict[str, Callable[[Pen, int, int, Ink], None]] = {
    "house": _house,
    "tree": _tree,
    "car": _car,
    "boat": _boat,
    "cup": _cup,
}


def _drawn(pen: Pen, name: str, colour: str, x: float, y: float, half: float) -> None:
    """One shape around a centre, filled."""
    ink = COLOURS[colour]
    box = (x - half, y - half, x + half, y + half)
    if name == "circle":
        pen.ellipse(box, ink)
    elif name == "ring":
        pen.ellipse(box, None, ink, max(3, round(half / 3)))
    elif name == "square":
        pen.rectangle(box, ink)
    elif name == "triangle":
        pen.polygon([(x, y - half), (x + half, y + half), (x - half, y + half)], ink)
    elif name == "cross":
        bar = half / 3
        pen.rectangle((x - half, y - bar, x + half, y + bar), ink)
        pen.rectangle((x - bar, y - half, x + bar, y + half), ink)
    else:
        turns = [(math.pi * (at / 5 - 0.5), half if at % 2 == 0 else half * 0.42) for at in range(10)]
        pen.polygon([(x + far * math.cos(turn), y + far * math.sin(turn)) for turn, far in turns], ink)
