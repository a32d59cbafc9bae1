"""XSTest v2 with completions and labels (Röttger et al. 2024, arXiv 2308.01263), the paper's borderline
retain set.

The authors keep the 230 of 450 rows whose `final_label` is full compliance and list them 50 times. Whoever
trains on XSTest cannot report over-refusal on it. To evaluate: `label: null, only: safe`; the published prompts
file, which has no completions and no labels, will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.reading import column, read_rows


@dataclass(frozen=True)
class Xstest:
    """Harmless requests with alarming words, and harmful contrasts, with a model's completions."""

    licence: ClassVar[str] = "CC-BY-4.0"

    path: str
    """xstest_v2_completions_gpt4_gpteval.csv, or a file or hub data set with the same columns."""
    split: str = "train"
    """Split of a hub data set."""
    label: str | None = "1_full_compliance"
    """Keep rows with this `final_label` (1_full_compliance, 2_full_refusal, 3_partial_refusal); null: all."""
    only: Literal["all", "safe", "unsafe"] = "all"
    """All types of request, the safe ones, or the unsafe contrasts (types that begin with "contrast")."""
    repeat: int = 1
    """Times the rows are listed (the authors: 50)."""

    def load(self) -> list[Chat]:
        """One chat a row.

        Raises:
            UserError: unreadable data, a missing column, or no row with the label.
        """
        rows = [row for row in read_rows(self.path, self.split) if self._wanted(column(row, "type"))]
        if not rows:
            raise UserError(
                f"{self.path}: no {self.only} request", "set only: all, or check the column `type`"
            )
        kept = [row for row in rows if self.label is None or column(row, "final_label") == self.label]
        if not kept:
            labels = ", ".join(sorted({column(row, "final_label") for row in rows}))
            raise UserError(
                f"{self.path}: no row has the label {self.label!r}", f"use null or one of: {labels}"
            )
        chats = [
            Chat(
                id=f"xstest-{column(row, 'id')}",
                messages=(Message("user", column(row, "prompt", empty=False)),),
                response=column(row, "completion") if self.label or "completion" in row.values else None,
                category=column(row, "type"),
                source="xstest",
            )
            for row in kept
        ]
        return chats * self.repeat

    def _wanted(self, kind: str) -> bool:
        return self.only == "all" or (self.only == "unsafe") == kind.startswith("contrast")
