"""Training, validation and test requests: fillings of one template, or a request and its twin, stay together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from rerouting.core.errors import UserError
from rerouting.core.files import sha256_of
from rerouting.core.records import Chat

Split = Literal["train", "validation", "test"]
NAMES: tuple[Split, ...] = ("train", "validation", "test")


def split_of(groups: Sequence[Sequence[Chat]], validation: float, test: float, seed: int) -> dict[str, Split]:
    """The split of every family (`meta["family"]`).

    Families are taken in an order of their own hash and the seed's, kind by kind, and each goes to the split with
    least of its share, so that even a few large ones reach every split.

    Args:
        groups: the requests of each kind; a family that several kinds share is placed by the first.
        validation: share of a kind's requests.
        test: share of a kind's requests.
        seed: same seed, same splits.

    Raises:
        UserError: shares that leave nothing to train on.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise UserError(f"shares of validation {validation} and test {test}", "their sum must be below 1")
    shares: dict[Split, float] = {"train": 1 - validation - test, "validation": validation, "test": test}
    found: dict[str, Split] = {}
    for chats in groups:
        families: defaultdict[str, int] = defaultdict(int)
        for chat in chats:
            families[chat.meta["family"]] += 1
        placed = dict.fromkeys(NAMES, 0)
        for family in sorted(families, key=lambda name: sha256_of([seed, name])):
            if family not in found:
                filled = {name: placed[name] / shares[name] for name in NAMES if shares[name]}
                found[family] = min(filled, key=lambda name: (filled[name], -shares[name]))
            placed[found[family]] += families[family]
    return found


def part(chats: Sequence[Chat], splits: dict[str, Split], name: Split) -> list[Chat]:
    """The chats of one split."""
    return [chat for chat in chats if splits[chat.meta["family"]] == name]
