"""A threshold for a rate of false alarms: one flagged token flags the whole answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rerouting.core.errors import UserError


def threshold_for(highest: Sequence[float], rate: float) -> float:
    """The lowest threshold that flags at most this share of harmless answers.

    Args:
        highest: the highest score in each harmless answer.
        rate: share of them that may be flagged, 0 to 1; an answer is flagged if a score is *above* the threshold.

    Raises:
        UserError: no answers, a score that is no number, or a rate outside 0 to 1.
    """
    if not highest or not all(map(math.isfinite, highest)):
        raise UserError(
            f"{len(highest)} harmless answers to set a threshold by, or a score is no number",
            "give harmless answers of at least five tokens",
        )
    if not 0 <= rate < 1:
        raise UserError(f"a false-positive rate of {rate}", "give a share from 0 to below 1, such as 0.01")
    return sorted(highest)[-1 - math.floor(rate * len(highest))]
