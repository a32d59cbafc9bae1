"""Text in front of a request, in the form of HarmBench's contextual behaviours.

Ours. A breaker that has only seen short requests misses them behind a page of text (docs/attack_matrix.md: contextual
behaviours are hardly defended). The text is harmless, and stands before harmless requests too, so that it says nothing
about what follows. Responses stay those that were written without it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from rerouting.core.attempt import with_context
from rerouting.core.errors import UserError
from rerouting.core.records import Chat

MOST = 4
"""Texts, one after the other, in front of one request."""


def with_contexts(
    chats: Sequence[Chat],
    texts: Sequence[str],
    share: float,
    seed: int,
    fits: Callable[[Chat], bool],
) -> tuple[list[Chat], int]:
    """Put 1 to 4 texts before the last request of a share of the chats, as far as they fit.

    Args:
        chats: a stream; those whose request was dropped get none.
        texts: harmless ones, such as answers of the retain stream.
        share: of the chats, 0 to 1; exact, by the seed, but for chats that nothing fits.
        seed: same seed, same texts.
        fits: whether a chat is within the length limits.

    Returns:
        The chats in order, and how many have a context now.

    Raises:
        UserError: a share outside 0 to 1, or no text.
    """
    if not 0 <= share <= 1:
        raise UserError(
            f"a share of {share} of the chats is to get a context",
            "give data.contexts and data.retain_contexts a share from 0 to 1",
        )
    if not share:
        return list(chats), 0
    pool = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not pool:
        raise UserError(
            "there is no text to put before a request", "give data.retain a source with responses"
        )
    draw = random.Random(f"{seed}/contexts")
    chosen = set(draw.sample(range(len(chats)), round(share * len(chats))))
    out = [_placed(one, pool, draw, fits) if at in chosen else one for at, one in enumerate(chats)]
    return out, sum(one is not other for one, other in zip(out, chats, strict=True))


def _placed(chat: Chat, pool: Sequence[str], draw: random.Random, fits: Callable[[Chat], bool]) -> Chat:
    drawn = draw.sample(pool, min(draw.randint(1, MOST), len(pool)))
    if chat.meta.get("request_dropped"):
        return chat
    kept: list[str] = []
    placed = chat
    for text in drawn:
        if text in (chat.response or ""):
            continue
        longer = chat.with_request(with_context("\n\n".join([*kept, text]), chat.request))
        if fits(longer):
            kept, placed = [*kept, text], longer
    return placed
