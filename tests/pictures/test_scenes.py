"""Drawn pictures show what their facts say, and are asked about what they show."""

import random
from collections import defaultdict

import numpy
import pytest

from rerouting.pictures.questions import any_question, is_right, question
from rerouting.pictures.scenes import COLOURS, FACTS, scene
from rerouting.pictures.writing import written

SCENES = [scene("train", number) for number in range(600)]


def test_the_same_number_is_the_same_picture_and_splits_differ():
    again = scene("train", 7)
    assert again.facts == SCENES[7].facts and again.picture.tobytes() == SCENES[7].picture.tobytes()
    assert scene("test", 7).picture.tobytes() != again.picture.tobytes()


def test_every_value_of_every_fact_is_drawn():
    seen = defaultdict(set)
    for one in SCENES:
        for fact, value in one.facts.items():
            assert value in FACTS[fact]
            seen[fact].add(value)
    assert {fact: len(values) for fact, values in seen.items()} == {f: len(v) for f, v in FACTS.items()}


@pytest.mark.parametrize("number", range(0, 60, 6))
def test_a_shape_has_its_colour(number):
    one = SCENES[number]
    pixels = numpy.array(one.picture).reshape(-1, 3)
    assert (pixels == COLOURS[one.facts["colour"]]).all(axis=1).sum() > 60


def test_questions_are_about_what_is_shown():
    for number, one in enumerate(SCENES[:60]):
        fact, text, answer = any_question(one.facts, random.Random(number))
        assert fact in one.facts and text.endswith("?") and answer.lower() == one.facts[fact]
        assert "{" not in text
    assert question({"word": "stop", "colour": "red"}, "word", random.Random(0))[1] == "STOP"
    many = {"shape": "cross", "count": "two", "colour": "red"}
    assert {question(many, "count", random.Random(seed))[0] for seed in range(9)} == {
        "How many crosses are there?",
        "How many shapes are in the picture?",
    }


def test_the_first_word_decides():
    assert is_right("Red.", "Red") and is_right("red, I think", "Red")
    assert not is_right("The colour is red", "Red") and not is_right("", "Red")


def test_text_fits_its_picture():
    for text in ("Hi", "word " * 60, "a" * 30):
        picture = numpy.array(written(text, 200))
        assert picture.min() < 30 and (picture[:2] == 255).all() and (picture[:, :2] == 255).all()
    assert (numpy.array(written("a few words", 200))[-2:] == 255).all()
