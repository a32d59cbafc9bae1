"""JailbreakBench's JBB-Behaviors (Chao et al. 2024, arXiv 2404.01318): 100 harmful behaviours and 100 benign twins.

Hub: JailbreakBench/JBB-Behaviors, configuration behaviors, splits harmful and benign; the same as harmful-behaviors.csv
and benign-behaviors.csv (Index, Goal, Target, Behavior, Category, Source).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rerouting.core.records import Chat, Message
from rerouting.data.reading import column, optional_column, read_rows


@dataclass(frozen=True)
class Jailbreakbench:
    """Requests with affirmative targets, in the ten categories of OpenAI's usage policies."""

    licence: ClassVar[str] = "MIT"

    path: str = "JailbreakBench/JBB-Behaviors"
    """Hub name, or a local CSV, JSON or Parquet file with the same columns."""
    split: str = "harmful"
    """Split of the hub data set, harmful or benign; a file is read as this split. Benign twins get no target."""
    config: str | None = "behaviors"
    """Configuration of the hub data set."""
    limit: int | None = None
    """First behaviours only; null for all."""

    def load(self) -> list[Chat]:
        """One chat a behaviour, without a response; `meta` holds the behaviour's short name and its source.

        Raises:
            UserError: unreadable data, or a missing column.
        """
        rows = read_rows(self.path, self.split, self.config, self.limit)
        return [
            Chat(
                id=f"jailbreakbench-{number}",
                messages=(Message("user", column(row, "Goal", empty=False)),),
                target=None if self.split == "benign" else optional_column(row, "Target") or None,
                category=column(row, "Category"),
                form="command",
                source="jailbreakbench",
                meta={"name": column(row, "Behavior"), "from": optional_column(row, "Source")}
                if "Source" in row.values
                else {"name": column(row, "Behavior")},
            )
            for number, row in enumerate(rows)
        ]
