"""Exact and near duplicates of texts, in whatever case, punctuation or Unicode form.

Near: MinHash over character 5-grams, candidates from locality-sensitive hashing (`datasketch`), each candidate then
compared exactly. Characters, because not every language puts blanks between words. Source of the method: Broder 1997,
On the resemblance and containment of documents.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from rerouting.core.errors import UserError

GRAM, PERMUTATIONS, LONGEST, COMPARED = 5, 64, 2000, 50
"""Characters in a shingle, hashes of a signature, characters of a text that are looked at, and candidates that are
compared exactly: of more, those with the most alike signatures."""
MISSED = 0.9
"""Weight of missed pairs against needless candidates when the hashing is laid out."""
_ASCII = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Duplicate:
    """A text that says again what an earlier one says.

    Attributes:
        at: its place.
        of: place of the earlier one.
        likeness: Jaccard likeness of the two, 1 where they are equal but for case, punctuation and Unicode form.
    """

    at: int
    of: int
    likeness: float


def normalised(text: str) -> str:
    """The letters, marks and digits of a text: NFKC, caseless, one blank for everything else.

    So `¿Cómo?`, `CÓMO…` and `cómo` with a combining accent are one; invisible characters within a word vanish.
    """
    if text.isascii():
        return _ASCII.sub(" ", text.lower()).strip()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = (_kept(sign) for sign in folded)
    return " ".join("".join(kept).split())


def _kept(sign: str) -> str:
    kind = unicodedata.category(sign)
    if kind == "Cf":
        return ""
    return sign if kind[0] in "LMN" else " "


def likeness(one: str, other: str) -> float:
    """Jaccard likeness of two normalised texts' shingles, 0 to 1."""
    first, second = _shingles(one), _shingles(other)
    return len(first & second) / len(first | second)


def duplicates(
    texts: Sequence[str],
    near: float | None = 0.8,
    progress: Callable[[int], None] | None = None,
    groups: Sequence[str] | None = None,
) -> list[Duplicate]:
    """Every text that an earlier one, itself no duplicate, equals or resembles.

    Args:
        texts: of any language; one without letters or digits is never a duplicate.
        near: Jaccard likeness (0 to 1) from which two are near duplicates; null for exact ones alone.
        progress: called with 1 for each text.
        groups: each text's; those of different groups are never duplicates. None: all are of one.

    Raises:
        UserError: a likeness outside 0.2 to 1.
    """
    if near is not None and not 0.2 <= near <= 1:
        raise UserError(
            f"near is {near}", "give a likeness from 0.2 to 1, or null for exact duplicates alone"
        )
    seen: dict[bytes, int] = {}
    index = _Index(near) if near is not None else None
    found = []
    for at, (text, group) in enumerate(zip(texts, groups or [""] * len(texts), strict=True)):
        plain = normalised(text)
        name = hashlib.sha256(f"{group}/{plain.replace(' ', '')}".encode()).digest()
        plain = plain[:LONGEST]
        earlier = seen.get(name) if plain else None
        if earlier is not None:
            found.append(Duplicate(at, earlier, 1.0))
        elif plain:
            match = index.closest(plain, group) if index else None
            if match is not None:
                found.append(Duplicate(at, *match))
            else:
                seen[name] = at
                if index:
                    index.add(at, plain, group)
        if progress:
            progress(1)
    return found


class _Index:
    """Texts by signature; the likeness of candidates is computed exactly, so signatures only cost recall."""

    def __init__(self, near: float) -> None:
        self.near = near
        self.table = MinHashLSH(
            threshold=max(0.1, near - 0.1), num_perm=PERMUTATIONS, weights=(1 - MISSED, MISSED)
        )
        self.empty = MinHash(num_perm=PERMUTATIONS, hashfunc=zlib.crc32)
        self.texts: dict[int, str] = {}
        self.groups: dict[int, str] = {}
        self.signatures: dict[int, NDArray[np.uint32]] = {}
        self.last: tuple[str, Any] = ("", None)

    def closest(self, text: str, group: str) -> tuple[int, float] | None:
        """The most similar text of the group that is near enough."""
        candidates = [at for at in self.table.query(self._signature(text)) if self.groups[at] == group]
        if len(candidates) > COMPARED:
            own = self._signature(text).hashvalues.astype(np.uint32)
            alike = (np.stack([self.signatures[at] for at in candidates]) == own).sum(axis=1)
            candidates = [candidates[place] for place in np.argsort(-alike, kind="stable")[:COMPARED]]
        scored = [(likeness(text, self.texts[at]), -at) for at in candidates]
        best = max(scored, default=(0.0, 0))
        return (-best[1], best[0]) if best[0] >= self.near else None

    def add(self, at: int, text: str, group: str) -> None:
        """Remember a text."""
        self.texts[at], self.groups[at] = text, group
        self.signatures[at] = self._signature(text).hashvalues.astype(np.uint32)
        self.table.insert(at, self._signature(text), check_duplication=False)

    def _signature(self, text: str) -> Any:
        if self.last[0] != text:
            signature = self.empty.copy()
            signature.update_batch([gram.encode() for gram in _shingles(text)])
            self.last = (text, signature)
        return self.last[1]


def _shingles(text: str) -> set[str]:
    return {text[at : at + GRAM] for at in range(max(1, len(text) - GRAM + 1))}
