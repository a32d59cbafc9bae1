"""UltraChat-200k, the paper's general retain set (hub: HuggingFaceH4/ultrachat_200k, split test_sft).

The authors take the first 10,001 conversations with at least two turns. A chat whose request is kept is the
whole conversation through the tokenizer's template (here: its last assistant turn is the response, all before
it the prompt; their mask covers both, so nothing is lost). A chat whose request is dropped is an empty
request and the *first* answer; `meta["first_response"]` keeps that answer for
`rerouting.data.mixing.drop_requests`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.messages import parse_messages, split_response
from rerouting.data.reading import Row, first, read_rows


@dataclass(frozen=True)
class Ultrachat:
    """Multi-turn conversations about anything."""

    licence: ClassVar[str] = "MIT"

    path: str = "HuggingFaceH4/ultrachat_200k"
    """Hub name, or a local Parquet, JSON or JSON Lines file with a `messages` column."""
    split: str = "test_sft"
    """Split of the hub data set."""
    limit: int | None = 10001
    """First conversations only; null for all."""
    turns: Literal["all", "first"] = "all"
    """The whole conversation, its last answer being the response; or the first request and its answer."""

    def load(self) -> list[Chat]:
        """One chat a conversation; those of fewer than two turns are passed over, as the authors do.

        Raises:
            UserError: unreadable data, no `messages` column, or a broken conversation (with its place).
        """
        first((), self.limit)
        chats: list[Chat] = []
        for number, row in enumerate(read_rows(self.path, self.split)):
            if len(chats) == self.limit:
                break
            if "messages" not in row.values:
                raise UserError(f"{row.where}: no column 'messages'", f"there are: {', '.join(row.values)}")
            turns = row.values["messages"]
            if not isinstance(turns, list) or len(turns) >= 2:
                chats.append(self._chat(number, row))
        return chats

    def _chat(self, number: int, row: Row) -> Chat:
        turns = parse_messages(row.values["messages"], row.where)
        answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
        if not answers:
            raise UserError(f"{row.where}: the conversation has no answer", "mend or remove the row")
        last = answers[0] if self.turns == "first" else answers[-1]
        messages, response = split_response(turns[: last + 1], row.where)
        identity = row.values.get("prompt_id")
        return Chat(
            id=f"ultrachat-{identity if isinstance(identity, str) else number}",
            messages=messages,
            response=response,
            source=f"ultrachat/{self.split}",
            meta={"first_response": turns[answers[0]].content},
        )
