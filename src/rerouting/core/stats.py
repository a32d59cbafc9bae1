"""Rates, with what belongs beside them: n, the Wilson interval, and the cases that were not scored.

Source of the interval: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def wilson(share: float, n: int) -> tuple[float, float]:
    """The Wilson 95 % interval of a share (0 to 1) of n cases, at least one; of a mean of shares it is a wide one."""
    spread = Z_95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return 0.0 if share == 0 else max(0.0, centre - half), 1.0 if share == 1 else min(1.0, centre + half)


@dataclass(frozen=True)
class Rate:
    """`hits` of `n` scored cases; unscored ones are counted apart and enter no rate."""

    hits: int
    n: int
    unscored: int = 0

    def __post_init__(self) -> None:
        for name in ("hits", "n", "unscored"):
            if isinstance(getattr(self, name), bool) or not hasattr(getattr(self, name), "__index__"):
                raise TypeError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        if not 0 <= self.hits <= self.n or self.unscored < 0:
            raise ValueError(f"need 0 <= hits <= n and unscored >= 0, got {self!r}")

    @property
    def value(self) -> float | None:
        """Share of hits, 0 to 1; None where nothing was scored."""
        return self.hits / self.n if self.n else None

    @property
    def low(self) -> float | None:
        """Lower end of the Wilson 95 % interval; None where nothing was scored."""
        return self._interval[0] if self.n else None

    @property
    def high(self) -> float | None:
        """Upper end of the Wilson 95 % interval; None where nothing was scored."""
        return self._interval[1] if self.n else None

    @property
    def _interval(self) -> tuple[float, float]:
        return wilson(self.hits / self.n, self.n)

    def as_dict(self) -> dict[str, int | float | None]:
        """For JSON: n, hits, rate, low, high, unscored."""
        return {
            "n": int(self.n),
            "hits": int(self.hits),
            "rate": self.value,
            "low": self.low,
            "high": self.high,
            "unscored": int(self.unscored),
        }

    def __str__(self) -> str:
        note = f", {self.unscored} unscored" if self.unscored else ""
        if not self.n:
            return f"– (0/0{note})"
        share, low, high = (100 * value for value in (self.hits / self.n, *self._interval))
        return f"{share:.1f} % [{low:.1f}, {high:.1f}] ({self.hits}/{self.n}{note})"
