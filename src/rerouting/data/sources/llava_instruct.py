"""LLaVA-Instruct and what is written like it: a JSON list of conversations about pictures in a folder (COCO's).

Source: Liu et al. 2023, arXiv 2304.08485 (llava_instruct_150k.json; `id`, `image`, `conversations` of `from` and
`value`, with "<image>" where the picture belongs). The last answer is the response; a longer conversation keeps the
earlier ones as its context.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from rerouting.core.records import Chat, Message
from rerouting.data.image_files import folder_of, pictures_in
from rerouting.data.messages import parse_messages, split_response
from rerouting.data.reading import Row, read_rows

MARK = "<image>"


@dataclass(frozen=True)
class LlavaInstruct:
    """Conversations about pictures."""

    licence: ClassVar[str] = "CC-BY-4.0 (the text; pictures have COCO's terms)"

    path: str
    """The .json or .jsonl file."""
    folder: str | None = None
    """Where the pictures are (train2017/); null for the file's own folder."""
    exchanges: int | None = None
    """Exchanges kept of a conversation, its first; null for all."""
    limit: int | None = None
    """First conversations only; null for all."""

    def load(self) -> list[Chat]:
        """One chat a conversation.

        Raises:
            UserError: unreadable data, no conversation, or a picture that is not there, with its place.
        """
        rows = read_rows(self.path, limit=self.limit)
        return [self._chat(number, row) for number, row in enumerate(rows)]

    def _chat(self, number: int, row: Row) -> Chat:
        images = pictures_in(row, "image", folder_of(self.path, self.folder))
        turns = parse_messages(row.values.get("conversations"), row.where)
        if self.exchanges is not None:
            turns = turns[: 2 * self.exchanges]
        before, response = split_response(turns, row.where)
        marked = next((at for at, turn in enumerate(before) if MARK in turn.content), 0)
        messages = tuple(
            _without_mark(turn, images if at == marked else ()) for at, turn in enumerate(before)
        )
        return Chat(
            f"llava-{row.values.get('id', number)}-{number}", messages, response, source="llava_instruct"
        )


def _without_mark(turn: Message, images: tuple[str, ...]) -> Message:
    return replace(turn, content=turn.content.replace(MARK, "").strip(), images=images)
