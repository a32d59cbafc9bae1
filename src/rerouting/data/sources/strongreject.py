"""StrongREJECT's forbidden prompts (Souly et al. 2024, arXiv 2402.10260): strongreject_dataset.csv, 313 of them.

Columns category, source, forbidden_prompt; strongreject_small_dataset.csv has 60 with the same columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rerouting.core.records import Chat, Message
from rerouting.data.reading import column, read_rows


@dataclass(frozen=True)
class Strongreject:
    """Harmful requests in six categories, most of them questions."""

    licence: ClassVar[str] = "MIT; rows from other sets under theirs (column source)"

    path: str
    """strongreject_dataset.csv, or a file or hub data set with the same columns."""
    split: str = "train"
    """Split of a hub data set."""
    limit: int | None = None
    """First prompts only; null for all."""

    def load(self) -> list[Chat]:
        """One chat a prompt, without a response.

        Raises:
            UserError: unreadable data, or a missing column.
        """
        return [
            Chat(
                id=f"strongreject-{number}",
                messages=(Message("user", column(row, "forbidden_prompt", empty=False)),),
                category=column(row, "category"),
                source="strongreject",
                meta={"from": column(row, "source")},
            )
            for number, row in enumerate(read_rows(self.path, self.split, limit=self.limit))
        ]
