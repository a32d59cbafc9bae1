"""Texts that judges put answers into, and names of texts: verdicts of other ones are not reused."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from rerouting.core.errors import UserError

_PLACE = re.compile(r"\{([a-z_]+)\}")


@cache
def text_of(name: str) -> str:
    """The text of `judges/prompts/NAME.txt`, or of a file given by its path.

    Raises:
        UserError: no such file.
    """
    own = Path(__file__).parent / "prompts" / f"{name}.txt"
    try:
        return (own if own.is_file() else Path(name).expanduser()).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the judge's text {name[:80]!r}: {str(error)[:80]}",
            "give the path of a UTF-8 text file",
        ) from error


def version_of(*names: str) -> str:
    """Hash of the texts."""
    return hashlib.sha256("\0".join(map(text_of, names)).encode()).hexdigest()[:16]


def filled(text: str, **values: str) -> str:
    """The text with its places filled, once each: braces in an answer stay what they are.

    Raises:
        UserError: the text has no place for one of the values.
    """
    missing = [name for name in values if f"{{{name}}}" not in text]
    if missing:
        raise UserError(
            f"the judge's text has no place for {', '.join(missing)}", f"write {{{missing[0]}}} where it goes"
        )
    return _PLACE.sub(lambda match: values.get(match.group(1), match.group(0)), text)
