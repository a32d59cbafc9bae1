"""LMSYS-Chat-1M (Zheng et al. 2023, arXiv 2309.11998) and its like: real conversations of several turns.

Hub: lmsys/lmsys-chat-1m (gated; columns conversation_id, model, conversation, turn, language, openai_moderation,
redacted). Rows without moderation, language or redaction columns count as unflagged, of any language, unredacted; so
other sets of the same shape can be read too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.messages import parse_messages, split_response
from rerouting.data.reading import Row, first, read_rows


@dataclass(frozen=True)
class Lmsys:
    """Conversations up to their last answer."""

    licence: ClassVar[str] = "LMSYS-Chat-1M Dataset License Agreement"

    path: str = "lmsys/lmsys-chat-1m"
    """Hub name, or a local Parquet, JSON or JSON Lines file with a `conversation` column."""
    split: str = "train"
    """Split of the hub data set."""
    language: str | None = "English"
    """Language of the conversation, as the data set names it; null for any."""
    model: str = ""
    """How the name of the model that answered begins; "" for any."""
    flagged: bool = False
    """Keep conversations with a turn that OpenAI's moderation flagged."""
    redacted: bool = False
    """Keep conversations in which names were replaced (NAME_1)."""
    turns: int | None = None
    """User turns of the conversation, at most; null for any number."""
    limit: int | None = 2000
    """First conversations that qualify; null for all."""

    def load(self) -> list[Chat]:
        """One chat a conversation; those that end before their first answer are passed over.

        Raises:
            UserError: unreadable data, no `conversation` column, a broken turn (with its place), or nothing that
                qualifies.
        """
        first((), self.limit)
        chats: list[Chat] = []
        for number, row in enumerate(read_rows(self.path, self.split)):
            if len(chats) == self.limit:
                break
            chat = self._chat(number, row)
            if chat is not None:
                chats.append(chat)
        if not chats:
            raise UserError(
                f"{self.path}: no conversation qualifies", "loosen language, model, turns or flagged"
            )
        return chats

    def _chat(self, number: int, row: Row) -> Chat | None:
        if "conversation" not in row.values:
            raise UserError(f"{row.where}: no column 'conversation'", f"there are: {', '.join(row.values)}")
        if not self._wanted(row.values):
            return None
        turns = parse_messages(row.values["conversation"], row.where)
        answers = [place for place, turn in enumerate(turns) if turn.role == "assistant" and place]
        asked = sum(turn.role == "user" for turn in turns)
        if not answers or (self.turns is not None and asked > self.turns):
            return None
        messages, response = split_response(turns[: answers[-1] + 1], row.where)
        identity = row.values.get("conversation_id")
        return Chat(
            id=f"lmsys-{identity if isinstance(identity, str) else number}",
            messages=messages,
            response=response,
            source=f"lmsys/{self.split}",
            meta={"model": str(row.values.get("model") or "")},
        )

    def _wanted(self, values: dict[str, Any]) -> bool:
        if self.language is not None and values.get("language", self.language) != self.language:
            return False
        if not str(values.get("model") or "").startswith(self.model):
            return False
        if values.get("redacted") and not self.redacted:
            return False
        return self.flagged or not _is_flagged(values.get("openai_moderation"))


def _is_flagged(moderation: Any) -> bool:
    if not isinstance(moderation, Sequence) or isinstance(moderation, str):
        return False
    return any(isinstance(turn, dict) and bool(turn.get("flagged")) for turn in moderation)
