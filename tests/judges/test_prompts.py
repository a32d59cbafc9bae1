"""Texts that judges put answers into."""

import pytest

from rerouting.core.errors import UserError
from rerouting.judges._prompts import filled, text_of, version_of
from rerouting.judges.harmbench import CONTEXTUAL, STANDARD
from rerouting.judges.strongreject import FINETUNED, RUBRIC

# Names of the texts that were compared, word for word, with the published ones; a changed blank is another prompt.
COMPARED = {
    STANDARD: "788f4f6aa1491c43",
    CONTEXTUAL: "5d6bb9e3cf4d1e5f",
    FINETUNED: "d90102b02d66b34a",
    RUBRIC: "0a282b857e1e53ff",
}
NASTY = "}} {{ {0} {answer} {behaviour} {} %s \\1 \\g<0>"


@pytest.mark.parametrize("name", COMPARED)
def test_published_prompts_are_those_that_were_compared(name):
    assert version_of(name) == COMPARED[name]


def test_braces_in_an_answer_stay_what_they_are():
    assert filled("<{answer}|{behaviour}>", answer=NASTY, behaviour="{answer}") == f"<{NASTY}|{{answer}}>"


def test_other_braces_of_a_text_stay():
    assert filled("{answer} {other} {1}", answer="a") == "a {other} {1}"


def test_a_text_without_a_place_is_refused():
    with pytest.raises(UserError, match=r"no place for answer — write \{answer\} where it goes"):
        filled("{behaviour} only", behaviour="b", answer="a")


@pytest.mark.parametrize("name", ["nowhere/rubric.txt", "a whole rubric " * 30, "nul\0", "/"])
def test_what_is_no_text_file_is_refused(name):
    with pytest.raises(UserError, match="give the path of a UTF-8 text file"):
        text_of(name)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        text_of(str(tmp_path / "latin.txt"))


def test_the_version_is_that_of_the_text(tmp_path):
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("{answer}?")
    other.write_text("{answer}!")
    assert version_of(str(one)) != version_of(str(other))
    assert version_of(STANDARD, CONTEXTUAL) != version_of(CONTEXTUAL, STANDARD) != version_of(STANDARD)
