"""Weighted mixing of sources, request dropping, and the order in which training visits examples.

Everything is a pure function of its arguments and a seed; the examples of a step follow from the step's
number, so a resumed run needs no data position of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message


def mix(parts: Sequence[tuple[list[Chat], float]], count: int, seed: int) -> list[Chat]:
    """Draw `count` chats from weighted parts and shuffle them.

    Each part gets its exact share (rounded by largest remainder). Within a part every chat is drawn once
    before any is drawn twice, in an order of its own in every round.

    Args:
        parts: (chats, weight) pairs; weights are relative, 0 leaves a part out.
        count: chats to return.
        seed: same seed, same list.

    Raises:
        UserError: a negative weight, no positive one, or an empty part with a positive weight.
    """
    shares = _shares([weight for _, weight in parts], count)
    drawn: list[Chat] = []
    for number, ((chats, weight), share) in enumerate(zip(parts, shares, strict=True)):
        if weight > 0 and not chats:
            raise UserError(
                f"data source number {number + 1} of the mixture is empty",
                "check its options, or set weight 0",
            )
        for epoch in range(math.ceil(share / len(chats)) if chats else 0):
            order = _permutation(len(chats), f"{seed}/{number}/{epoch}")
            drawn += [chats[index] for index in order[: share - epoch * len(chats)]]
    random.Random(f"{seed}/mix").shuffle(drawn)
    return drawn


def drop_requests(chats: Sequence[Chat], probability: float, seed: int) -> list[Chat]:
    """With the given probability, empty a chat's request and keep its response.

    Source: the authors' data code (probability 0.5 for Llama-3, both sets). A dropped chat keeps its system
    prompt and nothing else before the response: earlier turns go too. UltraChat's dropped chats keep the
    first answer instead of the last (`meta["first_response"]`), as in that code. `meta["request_dropped"]`
    marks them.

    Raises:
        UserError: a probability outside 0 to 1.
    """
    if not 0 <= probability <= 1:
        raise UserError(f"drop_request is {probability}", "give a probability from 0 to 1")
    choose = random.Random(f"{seed}/drop")
    return [_without_request(chat) if choose.random() < probability else chat for chat in chats]


def batch_indices(n_items: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Indices (batch_size,) of the items that step number `step` (from 0) visits.

    Steps follow each other through the items without a gap; each epoch has its own order, and a batch may end
    one epoch and begin the next.

    Raises:
        UserError: there are no items.
    """
    if n_items < 1:
        raise UserError("there is nothing to train on", "check the data sources")
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [_permutation(n_items, f"{seed}/order/{at // n_items}")[at % n_items] for at in positions]


@lru_cache(maxsize=64)
def _permutation(length: int, seed: str) -> tuple[int, ...]:
    order = list(range(length))
    random.Random(seed).shuffle(order)
    return tuple(order)


def _shares(weights: Sequence[float], count: int) -> list[int]:
    if any(not math.isfinite(weight) or weight < 0 for weight in weights) or not sum(weights) > 0:
        raise UserError(
            f"source weights are {list(weights)}", "give every source a weight of 0 or more, one above 0"
        )
    exact = [weight / sum(weights) * count for weight in weights]
    shares = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: (shares[place] - exact[place], place))
    for place in by_remainder[: count - sum(shares)]:
        shares[place] += 1
    return shares


def _without_request(chat: Chat) -> Chat:
    system = tuple(turn for turn in chat.messages if turn.role == "system")
    return replace(
        chat,
        messages=(*system, Message("user", "")),
        response=chat.meta.get("first_response", chat.response),
        meta={**chat.meta, "request_dropped": True},
    )
