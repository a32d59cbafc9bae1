"""Two models on the same cases: McNemar's exact test and the difference of the rates.

Sources: McNemar 1947, "Note on the sampling error of the difference between correlated proportions" (exact binomial
form, two-sided); Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based
on paired data", method 10 (Wilson intervals, with the continuity-corrected phi).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rerouting.core.stats import Rate


@dataclass(frozen=True)
class Paired:
    """Rate of the second minus rate of the first.

    Attributes:
        n: pairs.
        difference: −1 to 1.
        low: lower end of its 95 % interval.
        high: upper end.
        only_first: pairs in which only the first is a hit.
        only_second: pairs in which only the second is.
        p: two-sided exact p value of McNemar's test; 1 where no pair differs.
    """

    n: int
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def mcnemar(pairs: Sequence[tuple[bool, bool]]) -> Paired:
    """Compare hits of two models on the same cases; at least one pair."""
    n = len(pairs)
    both = sum(first and second for first, second in pairs)
    only_first = sum(first and not second for first, second in pairs)
    only_second = sum(second and not first for first, second in pairs)
    neither = n - both - only_first - only_second
    one, two = Rate(both + only_second, n), Rate(both + only_first, n)
    phi = _phi(both, only_first, only_second, neither)
    share_one, share_two = one.hits / n, two.hits / n
    down_one, up_one = share_one - (one.low or 0.0), (one.high or 0.0) - share_one
    down_two, up_two = share_two - (two.low or 0.0), (two.high or 0.0) - share_two
    low = math.sqrt(max(0.0, down_one**2 - 2 * phi * down_one * up_two + up_two**2))
    high = math.sqrt(max(0.0, down_two**2 - 2 * phi * down_two * up_one + up_one**2))
    difference = share_one - share_two
    return Paired(
        n,
        difference,
        difference - low,
        difference + high,
        only_first,
        only_second,
        _p(only_first, only_second),
    )


def _phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Correlation of the two, corrected towards 0 when it is positive."""
    rows = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if not rows:
        return 0.0
    product = both * neither - only_first * only_second
    if product > 0:
        product = max(product - (both + only_first + only_second + neither) / 2, 0)  # type: ignore[assignment]
    return product / math.sqrt(rows)


def _p(one: int, other: int) -> float:
    total = one + other
    tail = sum(math.comb(total, k) for k in range(min(one, other) + 1))
    return min(1.0, float(2 * tail / 2**total))  # whole numbers: floats overflow above 1,023 pairs
