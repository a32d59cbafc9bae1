"""WildChat (Zhao et al. 2024, arXiv 2405.01470): what people really ask; the paper's measure of over-refusal.

Source of the protocol: Zou et al. 2024, Table 3: 500 English, non-toxic requests to GPT-4. The paper does not say
which; here the first turns of the first conversations that qualify, those that say the same thing once. Hub:
allenai/WildChat (columns conversation, model, language, toxic).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.reading import Row, column, first, read_rows


@dataclass(frozen=True)
class Wildchat:
    """First user turns of real conversations, without responses."""

    licence: ClassVar[str] = "ODC-BY-1.0"

    path: str = "allenai/WildChat"
    """Hub name, or a local Parquet, JSON or JSON Lines file with the same columns."""
    split: str = "train"
    """Split of the hub data set."""
    language: str = "English"
    """Language of the conversation, as the data set names it."""
    model: str = "gpt-4"
    """How the name of the model that was asked begins; "" for any."""
    limit: int | None = 500
    """First requests only; null for all."""

    def load(self) -> list[Chat]:
        """One chat a conversation that is in the language, was not flagged as toxic, and begins with a request.

        Raises:
            UserError: unreadable data, a missing column, or nothing that qualifies.
        """
        first((), self.limit)
        chats: dict[str, Chat] = {}
        for number, row in enumerate(read_rows(self.path, self.split)):
            request = self._request(row)
            if request and request not in chats:
                chats[request] = Chat(f"wildchat-{number}", (Message("user", request),), source="wildchat")
            if len(chats) == self.limit:
                break
        if not chats:
            raise UserError(
                f"{self.path}: no {self.language} conversation with {self.model or 'any model'} that is not toxic",
                "check language and model",
            )
        return list(chats.values())

    def _request(self, row: Row) -> str:
        """The first turn's text; "" for a conversation that does not qualify."""
        for name in ("conversation", "toxic"):
            if name not in row.values:
                raise UserError(f"{row.where}: no column {name!r}", f"there are: {', '.join(row.values)}")
        wanted = column(row, "language") == self.language and column(row, "model").startswith(self.model)
        turns = row.values["conversation"]
        if not wanted or row.values["toxic"] or not isinstance(turns, list) or not turns:
            return ""
        start = turns[0]
        if not isinstance(start, dict) or start.get("role") != "user":
            return ""
        return str(start.get("content") or "").strip()
