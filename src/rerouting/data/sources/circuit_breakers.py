"""The authors' circuit-breaker set: a JSON list of {prompt, output, llama3_output}
(github.com/GraySwanAI/circuit-breakers).

`output` is an uncensored model's harmful completion, for the circuit-breaker set; `llama3_output` is
Llama-3's refusal, for the retain set (the paper's refusal retain: 2,000 of them, twice, Llama-3 only).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from rerouting.core.records import Chat, Message
from rerouting.data.reading import column, first, read_rows


@dataclass(frozen=True)
class CircuitBreakers:
    """Harmful requests with harmful completions or with refusals."""

    licence: ClassVar[str] = "MIT"

    path: str
    """The authors' circuit_breakers_train.json or _val.json, or a file with the same columns."""
    field: Literal["output", "llama3_output"] = "output"
    """The response: the harmful completion, or the refusal."""
    limit: int | None = None
    """Items to take; null for all."""
    shuffle_seed: int | None = None
    """Shuffle with this seed before `limit`, as the authors do for the refusals; null for file order."""
    repeat: int = 1
    """Times the items are listed (the authors list the refusals twice)."""

    def load(self) -> list[Chat]:
        """One chat an item, `id` by its place in the file.

        Raises:
            UserError: an unreadable file, a missing column, or a value that is not text (with its place).
        """
        rows = list(enumerate(read_rows(self.path)))
        if self.shuffle_seed is not None:
            random.Random(self.shuffle_seed).shuffle(rows)
        chats = [
            Chat(
                id=f"circuit_breakers-{number}",
                messages=(Message("user", column(row, "prompt")),),
                response=column(row, self.field),
                source=f"circuit_breakers/{self.field}",
            )
            for number, row in first(rows, self.limit)
        ]
        return chats * self.repeat
