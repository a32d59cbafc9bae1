"""What was measured of two models: one figure each, its interval, and their paired difference.

Sources of the intervals: Wilson 1927 for rates, Newcombe 1998 for their difference (`core.paired`); for means the
normal approximation over units (texts, questions), paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rerouting.core.paired import mcnemar
from rerouting.core.stats import Z_95, Rate

Interval = tuple[float, float]
MODELS = ("base", "rerouted")
"""The pair that everything is measured of, in this order."""


@dataclass(frozen=True)
class Finding:
    """One figure of both models.

    Attributes:
        name: what it is, "complied", "nll".
        part: of which texts or questions; "" for all.
        unit: "share" (0 to 1), "nats", "points" …
        n: units that it is a mean over.
        base: the base model's; None for a figure that only the pair has, such as a divergence.
        rerouted: the rerouted model's, or the pair's.
        base_interval: 95 %.
        rerouted_interval: 95 %.
        difference: rerouted − base.
        interval: of the difference, 95 %.
        p: McNemar's exact p value, for rates.
        unscored: units that could not be scored for one of the models, and enter nothing.
    """

    name: str
    part: str
    unit: str
    n: int
    base: float | None
    rerouted: float | None
    base_interval: Interval | None = None
    rerouted_interval: Interval | None = None
    difference: float | None = None
    interval: Interval | None = None
    p: float | None = None
    unscored: int = 0

    @classmethod
    def of_rates(
        cls, name: str, pairs: Sequence[tuple[bool, bool]], part: str = "", unscored: int = 0
    ) -> Finding:
        """From hits of (base, rerouted) on the same units."""
        rates = [Rate(sum(pair[at] for pair in pairs), len(pairs)) for at in (0, 1)]
        if not pairs:
            return cls(name, part, "share", 0, None, None, unscored=unscored)
        paired = mcnemar(pairs)
        base_ends, rerouted_ends = ((rate.low or 0.0, rate.high or 0.0) for rate in rates)
        return cls(
            name,
            part,
            "share",
            len(pairs),
            rates[0].value,
            rates[1].value,
            base_ends,
            rerouted_ends,
            paired.difference,
            (paired.low, paired.high),
            paired.p,
            unscored,
        )

    @classmethod
    def of_means(
        cls, name: str, unit: str, pairs: Sequence[tuple[float, float]], part: str = "", unscored: int = 0
    ) -> Finding:
        """From a figure of (base, rerouted) on the same units."""
        if not pairs:
            return cls(name, part, unit, 0, None, None, unscored=unscored)
        base, base_ends = mean([one for one, _ in pairs])
        rerouted, rerouted_ends = mean([two for _, two in pairs])
        difference, ends = mean([two - one for one, two in pairs])
        return cls(
            name,
            part,
            unit,
            len(pairs),
            base,
            rerouted,
            base_ends,
            rerouted_ends,
            difference,
            ends,
            unscored=unscored,
        )

    @classmethod
    def of_values(cls, name: str, unit: str, values: Sequence[float], part: str = "") -> Finding:
        """From a figure that only the pair of models has."""
        if not values:
            return cls(name, part, unit, 0, None, None)
        value, ends = mean(values)
        return cls(name, part, unit, len(values), None, value, rerouted_interval=ends)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def mean(values: Sequence[float]) -> tuple[float, Interval | None]:
    """Mean of at least one value with its 95 % interval, which a single value does not have."""
    n = len(values)
    centre = math.fsum(values) / n
    if n < 2:
        return centre, None
    variance = math.fsum((value - centre) ** 2 for value in values) / (n - 1)
    half = Z_95 * math.sqrt(variance / n)
    return centre, (centre - half, centre + half)
