"""OR-Bench (Cui et al. 2024, arXiv 2405.20947): harmless requests that sound harmful, and a harmful control.

Hub: bench-llm/or-bench, configurations or-bench-80k, or-bench-hard-1k and or-bench-toxic (columns prompt, category).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rerouting.core.records import Chat, Message
from rerouting.data.reading import column, read_rows


@dataclass(frozen=True)
class OrBench:
    """Requests without responses, in ten categories."""

    licence: ClassVar[str] = "CC-BY-4.0"

    path: str = "bench-llm/or-bench"
    """Hub name, or a local CSV, JSON or Parquet file with the same columns."""
    config: str | None = "or-bench-hard-1k"
    """Configuration of the hub data set."""
    split: str = "train"
    """Split of the hub data set."""
    limit: int | None = None
    """First requests only; null for all."""

    def load(self) -> list[Chat]:
        """One chat a row.

        Raises:
            UserError: unreadable data, or a missing column.
        """
        rows = read_rows(self.path, self.split, self.config, self.limit)
        return [
            Chat(
                id=f"or_bench-{number}",
                messages=(Message("user", column(row, "prompt", empty=False)),),
                category=column(row, "category"),
                source=f"or_bench/{self.config}" if self.config else "or_bench",
            )
            for number, row in enumerate(rows)
        ]
