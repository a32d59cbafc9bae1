"""The prompts that ship with the package (data/bundled/README.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import ClassVar, Literal

from rerouting.core.errors import UserError
from rerouting.core.near import way_out
from rerouting.core.records import Chat
from rerouting.data.messages import parse_messages, split_response
from rerouting.data.reading import Row, column, first, optional_column, read_rows


@dataclass(frozen=True)
class Bundled:
    """Prompts without responses, in fixed splits: sample the responses on-policy."""

    licence: ClassVar[str] = "Apache-2.0"

    kind: Literal["harmful", "benign", "borderline"]
    """Harmful requests with affirmative targets, plain benign ones, or harmless ones with alarming words."""
    split: Literal["train", "validation", "test"] = "train"
    """Fixed split; nothing of one split is in another."""
    limit: int | None = None
    """First prompts only, of those that the filters leave; null for all."""
    categories: tuple[str, ...] = ()
    """Topics to keep ("facts", "arithmetic", …), to weight them as a source of their own; none for all."""
    forms: tuple[str, ...] = ()
    """Ways of asking to keep ("question", "command", …); none for all."""

    def load(self) -> list[Chat]:
        """The chats of this kind and split, in file order.

        Raises:
            UserError: an unknown kind, split, category or form, or an installation without the file.
        """
        if self.split not in ("train", "validation", "test"):
            raise UserError(f"bundled prompts have no split {self.split!r}", "use train, validation or test")
        resource = files("rerouting.data") / "bundled" / f"{self.kind}.jsonl"
        if not resource.is_file():
            raise UserError(f"no bundled prompts of kind {self.kind!r}", "use harmful, benign or borderline")
        with as_file(resource) as path:
            everything = read_rows(str(path))
        rows = [row for row in everything if column(row, "split") == self.split]
        for name, kept in (("category", self.categories), ("form", self.forms)):
            self._check(name, kept, everything)
            rows = [row for row in rows if not kept or column(row, name) in kept]
        return [self._chat(row) for row in first(rows, self.limit)]

    def _check(self, name: str, kept: tuple[str, ...], rows: Sequence[Row]) -> None:
        known = sorted({column(row, name) for row in rows})
        for item in kept:
            if item not in known:
                raise UserError(
                    f"bundled {self.kind} prompts have no {name} {item!r}", way_out(item, known, "there are")
                )

    def _chat(self, row: Row) -> Chat:
        messages, _ = split_response(parse_messages(row.values.get("messages"), row.where), row.where)
        return Chat(
            id=column(row, "id"),
            messages=messages,
            target=optional_column(row, "target" if "target" in row.values else None) or None,
            category=column(row, "category"),
            form=column(row, "form"),
            source=f"bundled/{self.kind}/{self.split}",
        )
