"""Translations made beforehand, from a file; they go from English only, so nothing is translated back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

from rerouting.core.contracts import Reply
from rerouting.core.errors import UserError
from rerouting.data.reading import column, read_rows


@dataclass(frozen=True)
class Files:
    """Rows with `text` (English), `language` (BCP 47) and `translation`."""

    path: str | None = None
    """A .jsonl, .json or .csv file; null for the bundled one (24 test prompts in six languages)."""

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Reply]:
        """Look each text up; whitespace at its ends does not count.

        Raises:
            UserError: an unreadable file, a row without one of the columns, or two translations of one text.
        """
        shown = self.path or "the bundled file"
        if source != "en":
            return [Reply(None, f"{shown} translates from English only, not from {source}") for _ in texts]
        table = _table(self.path)
        found = [table.get((text.strip(), target)) for text in texts]
        return [Reply(one) if one else Reply(None, f"not in {shown} ({target})") for one in found]


@cache
def _table(path: str | None) -> dict[tuple[str, str], str]:
    if path is None:
        with as_file(files("rerouting.data") / "bundled" / "translations.jsonl") as bundled:
            rows = read_rows(str(bundled))
    else:
        rows = read_rows(path)
    table: dict[tuple[str, str], str] = {}
    for row in rows:
        key = (column(row, "text", empty=False).strip(), column(row, "language", empty=False))
        translation = column(row, "translation", empty=False)
        if table.setdefault(key, translation) != translation:
            raise UserError(f"{row.where}: a second translation of the same text", "remove one of the two")
    return table
