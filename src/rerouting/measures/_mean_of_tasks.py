"""The mean over tasks, each with the same weight, as the Open LLM Leaderboard and the paper's Table 1 take it.

Source of the interval: Zou and Donner 2008, "Construction of confidence limits about effect measures: a general
approach" (MOVER): the distances of the tasks' own limits, squared and added. It says how well these tasks' documents
pin the mean down, and nothing about other tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rerouting.core.findings import Finding, Interval


def mean_of_tasks(tasks: Sequence[Finding]) -> list[Finding]:
    """One finding, or none: of fewer than two tasks, or where one is no share, or has no figure.

    Args:
        tasks: the finding that counts, of each task.
    """
    if len(tasks) < 2 or any(one.unit != "share" or one.difference is None for one in tasks):
        return []
    base, base_ends = _mean([(one.base, one.base_interval) for one in tasks])
    rerouted, rerouted_ends = _mean([(one.rerouted, one.rerouted_interval) for one in tasks])
    difference, ends = _mean([(one.difference, one.interval) for one in tasks])
    return [
        Finding(
            "mean over tasks",
            "",
            "share",
            len(tasks),
            base,
            rerouted,
            base_ends,
            rerouted_ends,
            difference,
            ends,
            unscored=sum(one.unscored for one in tasks),
        )
    ]


def _mean(figures: Sequence[tuple[float | None, Interval | None]]) -> tuple[float, Interval | None]:
    """Unweighted mean and its 95 % interval; None where a task has none, being a single document."""
    known = [(value or 0.0, ends) for value, ends in figures]
    centre = math.fsum(value for value, _ in known) / len(known)
    pairs = [(value, ends) for value, ends in known if ends is not None]
    if len(pairs) < len(known):
        return centre, None
    down = math.sqrt(math.fsum((value - ends[0]) ** 2 for value, ends in pairs)) / len(pairs)
    up = math.sqrt(math.fsum((ends[1] - value) ** 2 for value, ends in pairs)) / len(pairs)
    return centre, (centre - down, centre + up)
