"""The right answers to the package's short questions."""

import pytest

from rerouting.core.finder import Component, build
from rerouting.data.fact_answers import fact_answers, says_one_of


@pytest.mark.parametrize(
    ("id", "says", "right"),
    [
        ("benign-facts-066", "A marathon is 42.195 kilometres long.", True),
        ("benign-facts-066", "A marathon is 4.2 kilometres long.", False),
        ("benign-arithmetic-152", "The next number is 12.", True),
        ("benign-arithmetic-048", "It is 1/2 of a tablespoon.", False),
        ("benign-facts-203", "It was written by J. R. R. Tolkien.", True),
    ],
)
def test_right_answers_are_told_from_wrong_ones(id, says, right):
    assert says_one_of(says, fact_answers()[id]) is right


def test_answers_belong_to_questions_that_are_not_trained_on_and_do_not_tell_them():
    asked = {
        chat.id: chat
        for split in ("validation", "test")
        for chat in build("data.sources", Component("bundled", {"kind": "benign", "split": split})).load()
    }
    assert len(fact_answers()) > 190
    for id, words in fact_answers().items():
        chat = asked[id]
        assert chat.category in ("facts", "arithmetic")
        assert len(set(words)) == len(words) and all(word == word.lower().strip() for word in words)
        assert not says_one_of(chat.request, words), chat.request


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        ("It is Paris!", ("paris",), True),
        ("Comparisons", ("paris",), False),
        ("about 100.0 degrees", ("100",), True),
        ("about 100.5 or 1,100 or 1100 degrees", ("100",), False),
        ("She paid 100, then 5.", ("100",), True),
        ("It takes 300g, 100cm or 100:30am", ("100",), True),
        ("the 100th of -100, 1/100, −100", ("100",), False),
        ("It says 20 - 5 = 15.", ("15",), True),
        ("Camels live there.", ("camel",), True),
        ("3/4 of it", ("3/4",), True),
        ("H₂O", ("h2o", "h₂o"), True),
        ("$20", ("$20",), True),
        ("", ("a",), False),
    ],
)
def test_a_word_is_said_as_a_whole(text, words, says):
    assert says_one_of(text, words) is says
