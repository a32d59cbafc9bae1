"""Own or generated chats made fit to train on; every row that goes has a reason, and every reason a count.

The rules, in this order: a request or response that is missing; lengths; language; gibberish (loops by compression,
symbols); refusals among completions, or answers among refusals; duplicates, exact and near; likeness to an evaluation
behaviour (BLEU, `data.filtering`); balance over categories.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from rerouting.core.english import is_latin, reads_english
from rerouting.core.errors import UserError
from rerouting.core.gibberish import compression, letter_share
from rerouting.core.records import Chat
from rerouting.core.refusal import declines
from rerouting.data.duplicates import duplicates
from rerouting.data.filtering import Dropped, drop_contaminated
from rerouting.pictures.opening import identity

Answers = Literal["comply", "decline", "any", "none"]
Rules = Iterator[tuple[bool, str, str]]
SURE_WORDS = 20
"""Words from which on the share of function words tells English: short requests may have none."""


@dataclass
class CleaningConfig:
    """What a row must be to stay."""

    min_words: int = 3
    """Words of a request, at least (languages without blanks: characters are counted by fours)."""
    max_words: int = 150
    """Words of a request, at most."""
    min_response_words: int = 4
    """Words of a response, at least."""
    max_response_words: int = 1000
    """Words of a response, at most."""
    language: Literal["english", "any"] = "english"
    """English by script and function words, or no rule."""
    near: float | None = 0.8
    """Jaccard likeness of character 5-grams (0.2 to 1) from which two rows are duplicates; null: exact ones alone."""
    max_bleu: float | None = 0.3
    """Rows with a higher sentence BLEU (0 to 1) against an evaluation behaviour go (0.1 for function calls, as in the
    paper); null: no filter."""
    min_compression: float = 0.3
    """Compressed length over length below which a response is a loop; plain text has about 0.6."""
    min_letters: float = 0.7
    """Share of letters, digits and spaces, at least."""
    balance: float | None = 3.0
    """The largest category may be this many times the median one; null: as they are."""


@dataclass(frozen=True)
class Gone:
    """A row that was dropped.

    Attributes:
        chat: the row.
        reason: a short name, that counts are kept under.
        detail: what it resembles, or how long it is.
    """

    chat: Chat
    reason: str
    detail: str = ""


@dataclass
class Cleaned:
    """What stayed, in order, and what went."""

    kept: list[Chat]
    gone: list[Gone] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Rows dropped by reason, the most frequent first."""
        return dict(Counter(one.reason for one in self.gone).most_common())


def clean(
    chats: Sequence[Chat],
    config: CleaningConfig,
    answers: Answers,
    references: Iterable[str] = (),
    seen: Sequence[Chat] = (),
    seed: int = 0,
) -> Cleaned:
    """Keep the rows that break no rule.

    Args:
        chats: rows, in the order in which the first of two duplicates stays.
        config: the rules' thresholds.
        answers: what responses must do: comply, decline, either; or "none" for requests alone.
        references: evaluation behaviours that no request may resemble.
        seen: chats that no row may repeat (another split, another set).
        seed: chooses which rows of a category that is too large stay.

    Raises:
        UserError: a threshold that cannot be.
    """
    check_limits(config)
    found = Cleaned([])
    for chat in chats:
        reason, detail = fault(chat, config, answers)
        if reason:
            found.gone.append(Gone(chat, reason, detail))
        else:
            found.kept.append(chat)
    _without_duplicates(found, config, answers, seen)
    texts = list(references)
    if texts and config.max_bleu is not None:
        found.kept, dropped = drop_contaminated(found.kept, texts, config.max_bleu)
        _note(found, dropped, chats)
    if config.balance is not None:
        found.kept, more = balanced(found.kept, config.balance, seed)
        found.gone += [Gone(chat, "category too large", chat.category) for chat in more]
    return found


def fault(chat: Chat, config: CleaningConfig, answers: Answers) -> tuple[str, str]:
    """Why a row by itself cannot stay, and a detail; two empty texts if it can."""
    rules = _request_rules(chat.request.strip(), config)
    if answers != "none":
        rules = chain(rules, _response_rules((chat.response or "").strip(), config, answers))
    return next(((reason, detail) for broken, reason, detail in rules if broken), ("", ""))


def _request_rules(request: str, config: CleaningConfig) -> Rules:
    words = count_words(request)
    yield not request, "request is empty", ""
    yield words < config.min_words, "request too short", f"{words} words"
    yield words > config.max_words, "request too long", f"{words} words"
    yield config.language == "english" and not reads_as_english(request), "request not English", ""
    yield letter_share(request) < config.min_letters, "request is symbols", ""
    yield compression(request) < config.min_compression, "request is a loop", ""


def _response_rules(response: str, config: CleaningConfig, answers: Answers) -> Rules:
    words = count_words(response)
    yield not response, "response is empty", ""
    yield answers == "comply" and declines(response), "response is a refusal", ""
    yield answers == "decline" and not declines(response), "response is no refusal", ""
    yield words < config.min_response_words, "response too short", f"{words} words"
    yield words > config.max_response_words, "response too long", f"{words} words"
    yield config.language == "english" and not reads_as_english(response), "response not English", ""
    yield letter_share(response) < config.min_letters, "response is symbols", ""
    packed = compression(response)
    yield packed < config.min_compression, "response is a loop", f"{packed:.2f}"


def reads_as_english(text: str) -> bool:
    """Latin letters, and in a text of some length English function words."""
    return is_latin(text) and (len(text.split()) < SURE_WORDS or reads_english(text) is not False)


def count_words(text: str) -> int:
    """Words between blanks; of a text that has hardly any, a quarter of its characters."""
    words = len(text.split())
    return max(words, len(text) // 4) if words < len(text) / 20 else words


def text_of(chat: Chat, answers: Answers) -> str:
    """What makes two rows about the same pictures the same: all turns, and the response if it counts."""
    turns = [turn.content for turn in chat.messages if turn.role != "system"]
    return "\n".join([*turns, *([chat.response or ""] if answers != "none" else [])])


def pictures_of(chat: Chat) -> str:
    """Names a chat's pictures by their content; "" without any."""
    return " ".join(map(identity, chat.images))


def balanced(chats: Sequence[Chat], most: float, seed: int) -> tuple[list[Chat], list[Chat]]:
    """Cut every category to `most` times the median one's size; rows without a category stay.

    Returns:
        The rows that stay, in order, and the others.
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for at, chat in enumerate(chats):
        if chat.category:
            groups[chat.category].append(at)
    if len(groups) < 2:
        return list(chats), []
    limit = max(1, round(most * statistics.median(map(len, groups.values()))))
    out: set[int] = set()
    for name, places in groups.items():
        draw = random.Random(f"{seed}/balance/{name}")
        out.update(draw.sample(places, max(0, len(places) - limit)))
    return (
        [chat for at, chat in enumerate(chats) if at not in out],
        [chat for at, chat in enumerate(chats) if at in out],
    )


def _without_duplicates(
    found: Cleaned, config: CleaningConfig, answers: Answers, seen: Sequence[Chat]
) -> None:
    texts = [text_of(chat, answers) for chat in (*seen, *found.kept)]
    groups = [pictures_of(chat) for chat in (*seen, *found.kept)]
    every = duplicates(texts, config.near, groups=groups)
    twice = {one.at - len(seen): one for one in every if one.at >= len(seen)}
    for at, one in sorted(twice.items()):
        kind = "duplicate" if one.likeness == 1 else "near duplicate"
        first = found.kept[one.of - len(seen)].id if one.of >= len(seen) else "another set"
        found.gone.append(Gone(found.kept[at], kind, f"{one.likeness:.2f} of {first}"))
    found.kept = [chat for at, chat in enumerate(found.kept) if at not in twice]


def _note(found: Cleaned, dropped: Sequence[Dropped], chats: Sequence[Chat]) -> None:
    by_id = {chat.id: chat for chat in chats}
    for one in dropped:
        detail = f"BLEU {one.score:.2f}: {one.reference}"
        found.gone.append(Gone(by_id[one.chat_id], "like an evaluation behaviour", detail))


def check_limits(config: CleaningConfig) -> None:
    """Refuse limits that cannot be.

    Raises:
        UserError: says which.
    """
    if not 0 <= config.min_words <= config.max_words or config.min_response_words > config.max_response_words:
        raise UserError(
            f"words from {config.min_words} to {config.max_words}, of responses from {config.min_response_words} "
            f"to {config.max_response_words}",
            "give each lower limit at most its upper one",
        )
    if config.balance is not None and config.balance < 1:
        raise UserError(f"balance is {config.balance}", "give 1 or more, or null for no balance")
