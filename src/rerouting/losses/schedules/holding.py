"""Hold the mean relative retain distance at a level, by feedback on the retain coefficient.

Ours. How heavy the retain loss must be depends on model, data and rerouting loss, and had to be searched for
each time (docs/log.md); how far benign states may move is nearer to what one wants to say. After every step the
coefficient is multiplied by (distance / level)^gain, at most by e^±gain: it falls while nothing has moved yet,
which lets the rerouting find its direction, and rises as benign states begin to drift. The distance is
`retain_relative` of metrics.jsonl, over all processes, tokens and held layers of the step, whatever the retain
loss is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Holding:
    """A multiplicative integral controller of one number, which is its whole state."""

    level: float = 0.02
    """Mean distance ‖rep_cb − rep_M‖ / ‖rep_M‖ to hold."""
    reroute: float = 1.0
    """Coefficient of the rerouting loss, constant."""
    retain: float = 10.0
    """Coefficient of the retain loss at the first step."""
    gain: float = 0.1
    """How fast it follows: the most that its logarithm changes in a step."""
    least: float = 1.0
    """It never falls below this."""
    most: float = 1000.0
    """It never rises above this."""
    now: float = field(init=False)

    def __post_init__(self) -> None:
        if not (self.level > 0 and 0 < self.gain <= 1 and 0 < self.least <= self.retain <= self.most):
            raise ValueError(
                f"level {self.level} must be above 0, gain {self.gain} above 0 and at most 1, and "
                f"0 < least {self.least} <= retain {self.retain} <= most {self.most}"
            )
        self.now = self.retain

    def __call__(self, progress: float) -> tuple[float, float]:
        """Progress in (0, 1] -> (reroute coefficient, retain coefficient); progress does not count."""
        return self.reroute, self.now

    def observe(self, distance: float) -> None:
        """What the step that is over measured: the mean relative retain distance."""
        error = math.log(distance / self.level) if distance > 0 else -1.0
        changed = self.now * math.exp(self.gain * max(-1.0, min(1.0, error)))
        self.now = max(self.least, min(self.most, changed))

    def state(self) -> dict[str, float]:
        """For the checkpoint."""
        return {"now": self.now}

    def restore(self, state: dict[str, float]) -> None:
        """As `state` left it."""
        self.now = float(state["now"])
