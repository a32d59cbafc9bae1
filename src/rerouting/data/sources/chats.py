"""Any chat data set by its column names: JSON Lines, JSON, CSV, Parquet, a folder of these, or a hub name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import ClassVar, Literal

from rerouting.core.errors import UserError
from rerouting.core.records import Call, Chat, Message
from rerouting.data.image_files import folder_of, picture_at
from rerouting.data.messages import parse_messages, parse_tools, split_response, with_pictures
from rerouting.data.reading import Row, column, optional_column, read_rows
from rerouting.data.tool_text import as_text


@dataclass(frozen=True)
class Chats:
    """A data set of your own. UltraFeedback: prompt=instruction, context=input, response=output."""

    licence: ClassVar[str] = "the file's own"

    path: str
    """A .jsonl, .json, .csv or .parquet file, a folder, or a hub name ("owner/name")."""
    prompt: str | None = "prompt"
    """Column of the request; not read where `messages` is given."""
    response: str | None = "response"
    """Column of the response; null for prompts alone. With `messages`, used where the rows have it."""
    messages: str | None = None
    """Column of turns ([{"role", "content"}, …]); a final assistant turn is the response."""
    tools: str | None = None
    """Column of the functions on offer ([{"name", "description", "parameters"}, …]); with `messages`, whose turns may
    then have `tool_calls` and the role tool."""
    style: Literal["template", "json", "tagged", "pythonic"] = "template"
    """How functions and calls are written: as the chat template does, or as text, for templates without functions."""
    context: str | None = None
    """Column of text that follows the request after an empty line, where it is not empty."""
    system: str | None = None
    """Column of the system prompt; empty for none."""
    target: str | None = None
    """Column of the affirmative opening of a harmful response."""
    category: str | None = None
    """Column of the topic label."""
    form: str | None = None
    """Column of the way of asking (command, question, …)."""
    id: str | None = None
    """Column of a unique name; null to number the rows."""
    split: str = "train"
    """Split of a folder or of a hub data set."""
    config: str | None = None
    """Configuration of a hub data set."""
    limit: int | None = None
    """First rows only; null for all."""

    def load(self) -> list[Chat]:
        """One chat a row.

        Raises:
            UserError: unreadable or empty data, a missing column (the message lists those there are), or a
                value of the wrong type, with its place.
        """
        if self.messages is None and self.prompt is None:
            raise UserError(
                "neither a prompt column nor a messages column is named", "set prompt or messages"
            )
        rows = read_rows(self.path, self.split, self.config, self.limit)
        return [self.chat_of(number, row) for number, row in enumerate(rows)]

    def chat_of(self, number: int, row: Row) -> Chat:
        """One row as a chat.

        Raises:
            UserError: a missing column, or a value of the wrong type, with its place.
        """
        messages, response = self._turns(row)
        name = PurePath(self.path).stem
        system = optional_column(row, self.system)
        if system:
            messages = (Message("system", system), *(turn for turn in messages if turn.role != "system"))
        chat = Chat(
            id=f"{name}-{number}" if self.id is None else self._identity(row, self.id),
            messages=messages,
            response=response,
            target=optional_column(row, self.target) or None,
            category=optional_column(row, self.category),
            form=optional_column(row, self.form),
            source=name,
            tools=parse_tools(row.values.get(self.tools), row.where) if self.tools else (),
            calls=self._calls(row),
        )
        return chat if self.style == "template" else as_text(chat, self.style)

    def _calls(self, row: Row) -> tuple[Call, ...]:
        """The calls of a final assistant turn."""
        if self.messages is None:
            return ()
        last = parse_messages(row.values[self.messages], row.where)[-1]
        return last.calls

    def _turns(self, row: Row) -> tuple[tuple[Message, ...], str | None]:
        if self.messages is not None:
            if self.messages not in row.values:
                column(row, self.messages)
            given = parse_messages(row.values[self.messages], row.where)
            folder = folder_of(self.path, None)
            turns = with_pictures(given, lambda image: picture_at(folder, image, row.where))
            turns, response = split_response(turns, row.where)
            if response is None and self.response is not None and self.response in row.values:
                response = column(row, self.response)
            return turns, response
        assert self.prompt is not None
        request, context = column(row, self.prompt), optional_column(row, self.context)
        response = None if self.response is None else column(row, self.response)
        return (Message("user", f"{request}\n\n{context}" if context else request),), response

    def _identity(self, row: Row, name: str) -> str:
        value = row.values.get(name)
        return str(value) if isinstance(value, int) else column(row, name, empty=False)
