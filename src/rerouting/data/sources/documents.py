"""Documents in chunks, each a response: text to forget (WMDP's corpora) or not to recite (one given book).

Plain .txt or .md files, a folder of them, or rows with a text column: JSON Lines, CSV, Parquet, a hub name. WMDP's
corpora (Li et al. 2024, arXiv 2403.03218; hub: cais/wmdp-corpora) have the columns text and, the biological ones,
title, abstract and doi. A chunk without a request is rerouted whatever was asked; with `{opening}` in the request, the
model is asked to go on, as HarmBench's copyright behaviours do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.reading import Row, column, first, optional_column, read_rows

_TEXTS = (".txt", ".md")


@dataclass(frozen=True)
class Documents:
    """Chunks of whole paragraphs, as far as they fit."""

    licence: ClassVar[str] = "the documents' own (WMDP's corpora: MIT)"

    path: str
    """A .txt or .md file, a folder of them, a .jsonl, .json, .csv or .parquet file, or a hub name."""
    text: str = "text"
    """Column of the text, in files with columns."""
    title: str | None = None
    """Column of the title; the name of a .txt or .md file is its title."""
    request: str = ""
    """What a chunk is the answer to: "" for an empty request, or a text with {title} and {opening} ("Continue this
    text from {title}: {opening}"); the opening is then no part of the response."""
    opening_words: int = 25
    """Words of a chunk that {opening} stands for."""
    chunk_words: int = 150
    """Words of a chunk, at most; longer paragraphs are cut."""
    min_words: int = 20
    """Shorter rests are left out."""
    per_document: int | None = None
    """First chunks of each document only; null for all."""
    split: str = "train"
    """Split of a hub data set."""
    config: str | None = None
    """Configuration of a hub data set (cyber-forget-corpus, …)."""
    limit: int | None = None
    """First chunks only; null for all."""

    def load(self) -> list[Chat]:
        """One chat a chunk, the documents in order.

        Raises:
            UserError: unreadable or empty data, a missing column, or impossible lengths.
        """
        self._check()
        chats = [
            self._chat(f"documents-{number}-{part}", title, chunk)
            for number, (title, text) in enumerate(self._texts())
            for part, chunk in enumerate(self._chunks(text))
        ]
        if not chats:
            raise UserError(f"{self.path}: no chunk of {self.min_words} words or more", "lower min_words")
        return first(chats, self.limit)

    def _check(self) -> None:
        opening = self.opening_words if "{opening}" in self.request else 0
        if self.min_words < 1 or self.opening_words < 1 or opening + self.min_words > self.chunk_words:
            raise UserError(
                f"chunks of {self.chunk_words} words cannot hold an opening of {opening} and {self.min_words} more",
                "raise chunk_words, or lower opening_words or min_words (all 1 or more)",
            )

    def _texts(self) -> Iterator[tuple[str, str]]:
        """Title and text of every document."""
        local = Path(self.path).expanduser()
        files = sorted(file for file in local.rglob("*") if file.suffix in _TEXTS) if local.is_dir() else []
        if local.is_file() and local.suffix.lower() in _TEXTS:
            files = [local]
        if files:
            for file in files:
                try:
                    yield file.stem.replace("_", " "), file.read_text(encoding="utf-8-sig")
                except (OSError, UnicodeDecodeError) as error:
                    raise UserError(f"cannot read {file}: {error}", "give UTF-8 text files") from error
        else:
            for row in read_rows(self.path, self.split, self.config):
                yield self._title(row), column(row, self.text)

    def _title(self, row: Row) -> str:
        return optional_column(row, self.title)

    def _chunks(self, text: str) -> list[str]:
        """Paragraphs put together up to `chunk_words`; a longer one is cut between words."""
        chunks: list[list[str]] = []
        size = 0
        for paragraph in _pieces(text, self.chunk_words):
            words = len(paragraph.split())
            if not chunks or size + words > self.chunk_words:
                chunks.append([])
                size = 0
            chunks[-1].append(paragraph)
            size += words
        least = self.min_words + (self.opening_words if "{opening}" in self.request else 0)
        joined = ["\n\n".join(chunk) for chunk in chunks]
        return first([chunk for chunk in joined if len(chunk.split()) >= least], self.per_document)

    def _chat(self, name: str, title: str, chunk: str) -> Chat:
        opening, response = "", chunk
        if "{opening}" in self.request:
            opening, response = _split_words(chunk, self.opening_words)
        request = self.request.replace("{title}", title).replace("{opening}", opening)
        return Chat(
            id=name,
            messages=(Message("user", request),),
            response=response,
            category=title,
            source=f"documents/{Path(self.path).stem}",
            meta={} if request else {"request_dropped": True},
        )


def _pieces(text: str, most: int) -> Iterator[str]:
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        words = paragraph.split()
        if len(words) <= most:
            if words:
                yield paragraph.strip()
        else:
            yield from (" ".join(words[at : at + most]) for at in range(0, len(words), most))


def _split_words(text: str, count: int) -> tuple[str, str]:
    """The first words of a text as they stand, and the rest."""
    place = 0
    for word in text.split()[:count]:
        place = text.index(word, place) + len(word)
    return text[:place].strip(), text[place:].strip()
