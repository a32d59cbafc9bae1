"""The chats of a configured source, and an even choice of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rerouting.core.errors import UserError
from rerouting.core.finder import Component, build
from rerouting.core.records import Chat
from rerouting.data.config import SourceConfig

Item = TypeVar("Item")


def chats_of(source: SourceConfig) -> list[Chat]:
    """Load one source.

    Raises:
        UserError: the source is unknown, unreadable or empty.
    """
    chats: list[Chat] = build("data.sources", Component(source.name, source.options)).load()
    if not chats:
        raise UserError(f"data source {source.name} {source.options} is empty", "check its options")
    return chats


def spread(chats: Sequence[Item], limit: int | None) -> list[Item]:
    """At most `limit` chats, evenly spaced, so that every category of an ordered file is there."""
    if limit is None or limit >= len(chats):
        return list(chats)
    return [chats[index * len(chats) // limit] for index in range(limit)]
