"""What the right answers to the bundled short questions are: bundled/fact_answers.jsonl."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import as_file, files

from rerouting.core.errors import UserError
from rerouting.data.reading import read_rows

_WORD = r"(?<!\w){}s?(?!\w)"
_NUMBER = r"(?<![\w.,/−-]){}(?:\.0+)?(?!\d|[.,/]\d|(?:st|nd|rd|th)\b)"


@cache
def fact_answers() -> Mapping[str, tuple[str, ...]]:
    """Words of which a right answer has one, in lower case, by the id of a bundled prompt.

    Only questions with one right answer are in it, and no word that stands in its question.

    Raises:
        UserError: a row without them.
    """
    with as_file(files("rerouting.data") / "bundled" / "fact_answers.jsonl") as path:
        rows = read_rows(str(path))
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        words = row.values.get("answers")
        if (
            not isinstance(words, list)
            or not words
            or not all(isinstance(word, str) and word for word in words)
        ):
            raise UserError(
                f"{row.where}: no answers", "give a list of words, one of which a right answer has"
            )
        found[str(row.values.get("id"))] = tuple(words)
    return found


def says_one_of(text: str, words: Iterable[str]) -> bool:
    """Whether one of the words stands in the text as a whole word, or an s behind it, or as a number of its own.

    A number may have a unit ("300g") or zeros ("100.0") behind it; "1.100", "-100", "1/100" and "100th" are others.
    """
    found = "|".join(
        _NUMBER.format(re.escape(word)) if word[-1].isdigit() else _WORD.format(re.escape(word))
        for word in words
    )
    return re.search(found, text.lower()) is not None
