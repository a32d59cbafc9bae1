"""Completions of a model, kept on disk under the hash of everything that determines them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerouting.core.files import read_jsonl, write_jsonl
from rerouting.pictures.opening import named

CACHE_VERSION = 1
"""Raised when the meaning of the stored rows changes."""


def completion_key(identity: Mapping[str, Any], prompts: Sequence[Sequence[int]]) -> str:
    """Sha256 of the model's and the sampling's identity, the prompts' token ids and the cache's version.

    Args:
        identity: weights' digest, dtype, temperature, seed, …: JSON values, their order does not matter.
        prompts: token ids of each prompt, any lengths; order matters. What names the content of their pictures, if
            there are any, counts too.
    """
    content = {
        "version": CACHE_VERSION,
        "identity": dict(identity),
        "prompts": [named(prompt) for prompt in prompts],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class CompletionCache:
    """A folder of JSON Lines files, one a key; each is written whole or not at all.

    Args:
        folder: where the files are; made at the first write.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def get(self, key: str) -> list[dict[str, Any]] | None:
        """The rows under this key; None if there are none.

        Raises:
            UserError: the file is damaged (it names file and line; delete it to sample anew).
        """
        path = self._path(key)
        return read_jsonl(path) if path.is_file() else None

    def put(self, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store rows of JSON values; what was there is replaced.

        Raises:
            UserError: the folder cannot be written, or the disk is full.
        """
        write_jsonl(self._path(key), rows)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.jsonl"
