"""The requests that measures ask, and the answers that they score."""

from __future__ import annotations

from collections.abc import Sequence

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Aids
from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.config import SourceConfig
from rerouting.data.loading import chats_of, spread
from rerouting.targets.target import Target


def bundled(kind: str) -> SourceConfig:
    """The package's own test prompts of a kind."""
    return SourceConfig("bundled", {"kind": kind, "split": "test"})


def named(
    sources: Sequence[SourceConfig], limit: int | None, aids: Aids
) -> tuple[dict[str, list[Chat]], list[str]]:
    """The chats of each source under a short name of its own, and a note on those that the run was trained on.

    Args:
        sources: data sets.
        limit: chats taken of each, spread evenly; None for all.
        aids: says what training has not seen.

    Raises:
        UserError: no source, one that cannot be loaded, or one that was trained on as a whole.
    """
    if not sources:
        raise UserError(
            "no source was named", "give at least one, such as {name: bundled, options: {kind: benign}}"
        )
    found: dict[str, list[Chat]] = {}
    notes: list[str] = []
    for source in sources:
        chats = spread(chats_of(source), limit)
        kept, name = aids.unseen(chats), _name(source, found)
        if not kept:
            raise UserError(
                f"the run was trained on every request of {name}", "evaluate on requests that it has not seen"
            )
        if len(kept) < len(chats):
            notes.append(
                f"{name}: {len(chats) - len(kept)} of {len(chats)} left out, the run was trained on them"
            )
        found[name] = kept
    return found, notes


def answered(chats: Sequence[Chat], base: Target) -> list[Chat]:
    """The chats with their reference answers, or with the base's own where they have none; no empty ones."""
    open_ones = [chat for chat in chats if chat.response is None]
    own = dict(zip(map(id, open_ones), base.answer([Attempt(chat) for chat in open_ones]), strict=True))
    full = [chat.with_response(own[id(chat)]) if id(chat) in own else chat for chat in chats]
    return [chat for chat in full if (chat.response or "").strip()]


def _name(source: SourceConfig, taken: dict[str, list[Chat]]) -> str:
    options = source.options
    short = str(options.get("kind") or options.get("only") or source.name)
    if source.name not in ("bundled", short):
        short = f"{source.name} {short}"
    number, name = 1, short
    while name in taken:
        number, name = number + 1, f"{short} {number + 1}"
    return name
