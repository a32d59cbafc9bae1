"""The mean over tasks, each with the same weight, as the Open LLM Leaderboard and the paper's Table 1 take it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rerouting.core.findings import Finding, Interval, mean

Pairs = Sequence[tuple[float, float]]


def mean_of_tasks(tasks: Sequence[tuple[Finding, Pairs]]) -> list[Finding]:
    """One finding, or none: of fewer than two tasks, or where one is no share.

    The interval is normal, from the tasks' own standard errors: it says how well these tasks' documents pin the mean
    down, and nothing about other tasks.

    Args:
        tasks: the finding that counts of each task, and the figures (base, rerouted) of its documents.
    """
    if len(tasks) < 2 or any(found.unit != "share" or not pairs for found, pairs in tasks):
        return []
    each = [pairs for _, pairs in tasks]
    base, base_ends = _stratified([[one for one, _ in pairs] for pairs in each])
    rerouted, rerouted_ends = _stratified([[two for _, two in pairs] for pairs in each])
    difference, ends = _stratified([[two - one for one, two in pairs] for pairs in each])
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
            unscored=sum(found.unscored for found, _ in tasks),
        )
    ]


def _stratified(values: Sequence[Sequence[float]]) -> tuple[float, Interval | None]:
    """Unweighted mean of the means, with its 95 % interval; None where a task has a single document."""
    found = [mean(row) for row in values]
    centre = math.fsum(one for one, _ in found) / len(found)
    ends = [interval for _, interval in found]
    if None in ends:
        return centre, None
    half = math.sqrt(math.fsum(((end[1] - end[0]) / 2) ** 2 for end in ends if end)) / len(found)
    return centre, (centre - half, centre + half)
