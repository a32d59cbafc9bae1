"""Any data set of pictures, requests and completions, by its column names: JSON Lines, JSON, CSV, Parquet, a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import ClassVar

from rerouting.core.records import Chat, Message
from rerouting.data.image_files import folder_of, pictures_in
from rerouting.data.reading import Row, column, optional_column, read_rows


@dataclass(frozen=True)
class Pictured:
    """A multimodal data set of your own; a row without a picture is a chat of text alone."""

    licence: ClassVar[str] = "the file's own"

    path: str
    """A .jsonl, .json, .csv or .parquet file, or a folder of them."""
    image: str = "image"
    """Column of the picture's file, or of a list of files; null or empty for none."""
    folder: str | None = None
    """Where the pictures are; null for the data file's folder."""
    prompt: str = "prompt"
    """Column of the request."""
    response: str | None = "response"
    """Column of the response; null for requests alone."""
    target: str | None = None
    """Column of the affirmative opening of a harmful response, which image_pgd needs."""
    category: str | None = None
    """Column of the topic label."""
    limit: int | None = None
    """First rows only; null for all."""

    def load(self) -> list[Chat]:
        """One chat a row.

        Raises:
            UserError: unreadable data, a missing column, or a picture that is not there, with its place.
        """
        rows = read_rows(self.path, limit=self.limit)
        return [self._chat(number, row) for number, row in enumerate(rows)]

    def _chat(self, number: int, row: Row) -> Chat:
        name = PurePath(self.path).stem
        images = pictures_in(row, self.image, folder_of(self.path, self.folder))
        return Chat(
            id=f"{name}-{number}",
            messages=(Message("user", column(row, self.prompt), images=images),),
            response=None if self.response is None else column(row, self.response),
            target=optional_column(row, self.target) or None,
            category=optional_column(row, self.category),
            source=name,
        )
