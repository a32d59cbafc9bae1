"""A target whose greedy answers are kept in a file: asked again, or after a kill, they are not generated again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rerouting.core.attempt import Attempt
from rerouting.core.files import append_jsonl, read_jsonl, sha256_of
from rerouting.core.progress import bar
from rerouting.models.loading import LoadedModel
from rerouting.pictures.opening import named
from rerouting.targets.target import Target

GROUP = 64
"""Answers between two writes, which is what a kill can lose: so many on a CPU, four times as many on a GPU."""


class Remembered(Target):
    """As `Target`, for prompts of text or tokens.

    Args:
        loaded: the model.
        max_new_tokens: length at which an answer is cut.
        file: JSON Lines, of this model and this length alone.
        name: shown with the progress.
    """

    def __init__(self, loaded: LoadedModel, max_new_tokens: int, file: Path, name: str = "model") -> None:
        super().__init__(loaded, max_new_tokens)
        self.file, self.name = file, name
        rows = read_jsonl(file, tolerate_torn=True) if file.exists() else []
        self._known: dict[str, str] = {row["key"]: row["text"] for row in rows}

    def answer(self, attempts: Sequence[Attempt], *, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """As `Target.answer`; greedy answers come from the file where they are there."""
        if temperature or any(attempt.embeddings is not None for attempt in attempts):
            return super().answer(attempts, temperature=temperature, seed=seed)
        keys = [sha256_of(named(self.prompt_ids(attempt)))[:24] for attempt in attempts]
        pairs = zip(keys, attempts, strict=True)
        new = list({key: attempt for key, attempt in pairs if key not in self._known}.items())
        new.sort(key=lambda pair: -len(self.prompt_ids(pair[1])))  # like lengths pad little
        group = GROUP if next(self.model.parameters()).device.type == "cpu" else 4 * GROUP
        with bar(f"{self.name} answers", len(new)) as progress:
            for start in range(0, len(new), group):
                part = new[start : start + group]
                for (key, _), text in zip(part, super().answer([one for _, one in part]), strict=True):
                    self._known[key] = text
                    append_jsonl(self.file, {"key": key, "text": text})
                progress.advance(len(part))
        return [self._known[key] for key in keys]
