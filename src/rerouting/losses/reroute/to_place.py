"""Route to a chosen place: the angle from the adapted state to a state of the base model, measured beforehand.

Ours; Zou et al. 2024 leave rerouting to a chosen direction, such as the refusal's or the end of the text, to
future work. A state that only leaves where it was leaves the model to babble; one that goes to where the base
ends its answer (`end`) may end it, and one that goes to where the base refuses (`refusal`) may refuse.

For `end` the layer decides. SmolLM2-135M (30 layers; 16 harmful answers, states of the base moved onto the place
by hand, length kept, from the fifth token on): mean probability of the end of turn 0.03, 0.11, 0.74 and 0.95 at
layers 10, 15, 20 and 25, from 0.001; 13° to 14° away 0.52 at layer 20, 0.80 at layer 25. So: from two thirds of the
depth on, and within 10°. Further down, where harmful requests are told from harmless ones better, `stop` is a place
where the blocks above end the turn (training/stop_place.py; SmolLM2-135M, layer 16: with 1.00, from some 30° away too,
where `end` has 0.5): no loss on the vocabulary is needed.

The loss is θ(adapted, place) beyond `within`, as a share of a right angle. Its slope is the same at every angle,
and there is no stationary start: an untrained state already has somewhere to go.

Lengths count, though every block norms what it reads: what blocks *add* is as long as ever, and a state that got to
the place by a long step is too long for them to turn it further. SmolLM2's states within 10° of the place, but twice
as long as the base's, end the turn with probability 0.1 (they write line breaks, which is what the head reads off the
place itself); base states moved there by hand, length kept, with 0.93. Hence `length`.

What a single place cannot say is what comes *after* the next token: `refusal` gives each state the
direction of a refusal's beginning, and only the words that the model then writes take it further.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Generator, Tensor, relu

from rerouting.losses.geometry import angle


@dataclass(frozen=True)
class ToPlace:
    """Zero once a state lies within an angle of the place, and (if asked for) far enough from what it was."""

    place: Literal["end", "stop", "refusal", "retain"] = "end"
    """Where to: before the end of turn, where the blocks above do end it, the first words of refusals, or the mean of
    retained answers."""
    within: float = 10.0
    """Degrees from the place that are near enough."""
    length: float = 0.0
    """Weight of a second term, |log(‖adapted‖ / ‖reference‖)| beyond `tolerance`; 0 leaves lengths free."""
    tolerance: float = 0.1
    """Natural logarithm of the ratio of lengths that is near enough."""
    away: float = 0.0
    """Weight of a term 1 − θ(adapted, reference)/θ₀ clipped at 0, as in `angle`; 0 for none."""
    degrees: float = 50.0
    """That term's θ₀."""

    def __post_init__(self) -> None:
        weights = min(self.length, self.tolerance, self.away)
        if not (0 <= self.within < 180 and weights >= 0 and self.degrees > 0):
            raise ValueError(
                f"within {self.within} must be from 0 to 180, degrees {self.degrees} above 0, and length "
                f"{self.length}, tolerance {self.tolerance}, away {self.away} not negative"
            )

    @property
    def places(self) -> tuple[str, ...]:
        """The place that is needed."""
        return (self.place,)

    def __call__(
        self, adapted: Tensor, reference: Tensor, generator: Generator, *, places: Mapping[str, Tensor]
    ) -> Tensor:
        """Shapes (L, N, D), (L, N, D), places (L, 1, D) -> (L, N)."""
        left = relu(angle(adapted, places[self.place]) - math.radians(self.within)) / (math.pi / 2)
        if self.length:
            ratio = (adapted.float().norm(dim=-1) / reference.float().norm(dim=-1).clamp_min(1e-6)).clamp_min(
                1e-6
            )
            left = left + self.length * relu(ratio.log().abs() - self.tolerance)
        if not self.away:
            return left
        return left + self.away * relu(1 - angle(adapted, reference) / math.radians(self.degrees))
