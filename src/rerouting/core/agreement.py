"""How far two judges agree beyond chance.

Source: Cohen 1960, "A coefficient of agreement for nominal scales". What one of the two left unscored is left out, and
counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Agreement:
    """Two judges' verdicts on the same answers.

    Attributes:
        n: answers that both scored.
        left_out: answers that one or both did not.
        share: of the n on which they agree; None if there are none.
        kappa: Cohen's; None where chance alone agrees always (both say the same of everything).
    """

    n: int
    left_out: int
    share: float | None
    kappa: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def agreement(one: Sequence[bool | None], other: Sequence[bool | None]) -> Agreement:
    """Compare verdicts on the same answers, in the same order; None is unscored."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    n, left_out = len(pairs), len(one) - len(pairs)
    if not n:
        return Agreement(0, left_out, None, None)
    share = sum(a == b for a, b in pairs) / n
    yes_one, yes_other = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    chance = yes_one * yes_other + (1 - yes_one) * (1 - yes_other)
    return Agreement(n, left_out, share, None if chance == 1 else (share - chance) / (1 - chance))
