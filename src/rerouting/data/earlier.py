"""Earlier exchanges before a request: harmless ones, or a harmful one before a harmless request.

Ours. Multi-turn attacks (Crescendo, and people) come to the harmful request after turns that are not; a breaker
that has only seen first turns may not know it there. And a model that fell apart in one turn goes on so in the next
(measures/carry_over.py) unless it has learned to answer after such a turn. Responses stay those that were written
without the earlier turns.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message


def with_earlier_turns(
    chats: Sequence[Chat],
    exchanges: Sequence[Chat],
    share: float,
    most: int,
    seed: int,
    fits: Callable[[Chat], bool],
    whole: bool = True,
) -> tuple[list[Chat], int]:
    """Put 1 to `most` exchanges before a share of the chats: after the system prompt, before their own turns.

    A chat whose request was dropped gets none. Of the exchanges drawn, those that make the chat too long are
    passed over; `meta["earlier"]` names those that were put in.

    Args:
        chats: a stream.
        exchanges: single-turn chats with responses are drawn from, without a chat's own.
        share: of the chats, 0 to 1; exact, by the seed, but for chats that nothing fits.
        most: exchanges put before one chat.
        seed: same seed, same turns.
        fits: whether a chat is within the length limits.
        whole: draw only exchanges whose response was not cut off.

    Returns:
        The chats in order, and how many have earlier turns now.

    Raises:
        UserError: a share outside 0 to 1, `most` below 1, or no exchange to put in.
    """
    if not 0 <= share <= 1 or most < 1:
        raise UserError(
            f"a share of {share} of the chats is to get 1 to {most} earlier turns",
            "give data.earlier_turns and data.retain_earlier_turns a share from 0 to 1, and "
            "data.most_earlier_turns 1 or more",
        )
    if not share:
        return list(chats), 0
    pool = list({(one.source, one.id): one for one in exchanges if _is_exchange(one, whole)}.values())
    if not pool:
        raise UserError(
            "there is no single-turn chat with a whole response to put before a request",
            "take another source, raise sampling.max_new_tokens, or set data.earlier_turns 0",
        )
    draw = random.Random(f"{seed}/earlier")
    chosen = set(draw.sample(range(len(chats)), round(share * len(chats))))
    out = [_extended(one, pool, most, draw, fits) if at in chosen else one for at, one in enumerate(chats)]
    return out, sum(one is not other for one, other in zip(out, chats, strict=True))


def _is_exchange(chat: Chat, whole: bool) -> bool:
    return (
        len(chat.messages) == 1
        and bool(chat.request.strip())
        and bool((chat.response or "").strip())
        and not (whole and chat.meta.get("cut_off", False))
    )


def _extended(
    chat: Chat, pool: Sequence[Chat], most: int, draw: random.Random, fits: Callable[[Chat], bool]
) -> Chat:
    drawn = draw.sample(pool, min(draw.randint(1, most), len(pool)))
    if chat.meta.get("request_dropped"):
        return chat
    extended = chat
    for exchange in drawn:
        if (exchange.source, exchange.id) == (chat.source, chat.id):
            continue
        longer = _after(extended, exchange)
        extended = longer if fits(longer) else extended
    return extended


def _after(chat: Chat, exchange: Chat) -> Chat:
    """The chat with an exchange as its first turns."""
    system = tuple(turn for turn in chat.messages if turn.role == "system")
    turns = tuple(turn for turn in chat.messages if turn.role != "system")
    earlier = (exchange.messages[0], Message("assistant", exchange.response or ""))
    meta = {**chat.meta, "earlier": [exchange.id, *chat.meta.get("earlier", [])]}
    return replace(chat, messages=(*system, *earlier, *turns), meta=meta)
