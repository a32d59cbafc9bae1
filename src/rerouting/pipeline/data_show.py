"""What a data set holds, in figures and samples; text that may be harmful is folded unless asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.files import sha256_of
from rerouting.core.finder import available, find
from rerouting.core.records import Chat
from rerouting.data.cleaning import count_words
from rerouting.data.columns import chats_options
from rerouting.data.config import SourceConfig
from rerouting.data.loading import chats_of, spread
from rerouting.pipeline.overlap import Overlap

OPEN = ("bundled/benign/", "bundled/borderline/", "ultrachat/", "wildchat")
"""Sources whose text is shown without being asked for."""
COMPARED = 2000
"""Chats, spread evenly, that are compared with evaluation sets: each takes about a millisecond."""
FOLDED_WORDS = 4


@dataclass(frozen=True)
class Shown:
    """A data set in figures.

    Attributes:
        name: the source, with its options.
        licence: as the source states it.
        rows: label and value of every figure, in order.
        samples: texts, folded or not.
    """

    name: str
    licence: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)


def show(
    name: str, options: dict[str, Any], against: Sequence[SourceConfig], samples: int, harmful: bool
) -> Shown:
    """Read a data set and describe it.

    Args:
        name: a source's name, path/to/mine.py:Name, or a data file, whose columns are then guessed.
        options: of that source; for a file those of `chats`.
        against: evaluation sets that rows are compared with, besides those that are always.
        samples: chats shown, evenly spaced.
        harmful: show text that may be harmful in full.

    Raises:
        UserError: no such source or file, or unreadable data.
    """
    source = source_of(name, options)
    split, chats = source.options.get("split"), chats_of(source)
    shown = Shown(f"{source.name} {source.options}", _licence(source.name))
    shown.rows.append(("chats", f"{len(chats):,}"))
    if source.name == "bundled" or (split and "split" in _fields(source.name)):
        shown.rows.append(("splits", counted(_splits(source, chats))))
    shown.rows.extend(figures(chats))
    looked_at = spread(chats, COMPARED)
    found = Overlap(against).counts(looked_at)
    share = "" if len(looked_at) == len(chats) else f" (of {len(looked_at):,} looked at)"
    shown.rows.append(("like evaluation prompts", (counted(found) or "none") + share))
    shown.rows.append(("sha256", sha256_of(chats)[:16] + (f", split {split}" if split else "")))
    for chat in spread(chats, samples) if samples > 0 else []:
        shown.samples.append(sample(chat, harmful or chat.source.startswith(OPEN)))
    return shown


def source_of(name: str, options: dict[str, Any]) -> SourceConfig:
    """The source of that name, or `chats` with guessed columns for a data file.

    Raises:
        UserError: neither.
    """
    if name not in available("data.sources") and ".py:" not in name and Path(name).expanduser().is_file():
        if Path(name).suffix in (".txt", ".md"):
            return SourceConfig("documents", {"path": name, **options})
        return SourceConfig("chats", dict(chats_options(name, options)))
    find("data.sources", name)
    return SourceConfig(name, options)


def figures(chats: Sequence[Chat]) -> list[tuple[str, str]]:
    """Label and value of what can be counted."""
    answered = [chat for chat in chats if chat.response is not None]
    turns = Counter(sum(turn.role == "user" for turn in chat.messages) for chat in chats)
    rows = [
        ("with a response", f"{len(answered):,}"),
        ("with a target", f"{sum(chat.target is not None for chat in chats):,}"),
        ("with a system prompt", f"{sum(chat.messages[0].role == 'system' for chat in chats):,}"),
        ("user turns", counted({str(name): count for name, count in sorted(turns.items())})),
        ("words of a request", lengths([count_words(chat.request) for chat in chats])),
        ("words of a response", lengths([count_words(chat.response or "") for chat in answered])),
        ("different requests", f"{len({chat.request for chat in chats}):,}"),
        ("categories", counted(Counter(chat.category for chat in chats if chat.category))),
        ("forms", counted(Counter(chat.form for chat in chats if chat.form))),
    ]
    return [(label, value) for label, value in rows if value and value != "0"]


def lengths(values: Sequence[int]) -> str:
    """Least, median and most."""
    return f"{min(values)} to {max(values)}, median {median(values):g}" if values else ""


def counted(counts: dict[str, int]) -> str:
    """Names with their counts, the largest first."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def sample(chat: Chat, whole: bool) -> str:
    """A chat as text, one turn a paragraph; folded: the first words of every turn, and how many more there are."""
    turns: list[tuple[str, str]] = [(turn.role, turn.content) for turn in chat.messages]
    turns += [("assistant", chat.response)] if chat.response is not None else []
    turns += [("target", chat.target)] if chat.target is not None else []
    label = " / ".join(filter(None, (chat.id, chat.category, chat.form)))
    return "\n".join([f"[{label}]", *(f"{role}: {text if whole else folded(text)}" for role, text in turns)])


def folded(text: str) -> str:
    """The first words; short texts lose their second half."""
    words = text.split()
    kept = min(FOLDED_WORDS, len(words) // 2)
    return f"{' '.join(words[:kept])} … [{len(words) - kept} words folded]" if words else "(empty)"


def _splits(source: SourceConfig, chats: Sequence[Chat]) -> dict[str, int]:
    """Chats of every split that can be had without the network; else of the one that was loaded."""
    if source.name != "bundled":
        return {str(source.options["split"]): len(chats)}
    given = {name: value for name, value in source.options.items() if name != "split"}
    names = ("train", "validation", "test")
    return {name: len(chats_of(SourceConfig("bundled", {**given, "split": name}))) for name in names}


def _licence(name: str) -> str:
    return str(getattr(find("data.sources", name), "licence", "not stated"))


def _fields(name: str) -> tuple[str, ...]:
    found = find("data.sources", name)
    if not isinstance(found, type):
        raise UserError(f"{name} is no class", "a source is a dataclass with load()")
    return tuple(getattr(found, "__dataclass_fields__", {}))
