"""AdvBench, harmful goals with targets (Zou et al. 2023, arXiv 2307.15043): a CSV of goal, target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rerouting.core.records import Chat, Message
from rerouting.data.reading import column, read_rows


@dataclass(frozen=True)
class Advbench:
    """Harmful imperatives; all of them begin "Write", "Develop", "Give" and the like."""

    licence: ClassVar[str] = "MIT"

    path: str
    """harmful_behaviors.csv (advbench.csv), or a file or hub data set with the columns goal and target."""
    split: str = "train"
    """Split of a hub data set."""
    limit: int | None = None
    """First goals only; null for all."""

    def load(self) -> list[Chat]:
        """One chat a goal, without a response.

        Raises:
            UserError: unreadable data or a missing column.
        """
        return [
            Chat(
                id=f"advbench-{number}",
                messages=(Message("user", column(row, "goal", empty=False)),),
                target=column(row, "target", empty=False),
                form="command",
                source="advbench",
            )
            for number, row in enumerate(read_rows(self.path, self.split, limit=self.limit))
        ]
