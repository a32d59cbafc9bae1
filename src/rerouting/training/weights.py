"""The weights of both losses, step by step: a schedule, and what it is told if it asks."""

from __future__ import annotations

from typing import Any

from rerouting.core.finder import Component, build
from rerouting.training.objective import Measures
from rerouting.training.processes import Processes


class Weights:
    """A schedule over a run; the same in all processes.

    Args:
        component: a file of losses/schedules.
        steps: of the run.
        processes: the main one's measures are what a schedule that observes is told.
    """

    def __init__(self, component: Component, steps: int, processes: Processes) -> None:
        self.schedule = build("losses.schedules", component)
        self.steps, self.processes = steps, processes
        self.observes = hasattr(self.schedule, "observe")

    def __call__(self, step: int) -> tuple[float, float]:
        """Coefficients of the rerouting and the retain loss."""
        reroute, retain = self.schedule(step / self.steps)
        return reroute, retain

    def observe(self, retained: Measures) -> None:
        """Tell the schedule what a step measured, if it asks."""
        if self.observes:
            self.schedule.observe(self.processes.agree(retained.overall("relative")))

    def state(self) -> dict[str, Any]:
        """For the checkpoint; nothing for a schedule of progress alone."""
        return {"schedule": self.schedule.state()} if self.observes else {}

    def resumed(self, saved: dict[str, Any]) -> int:
        """Go on from a checkpoint's state; the step it was made at."""
        if self.observes and saved["step"]:
            self.schedule.restore(saved["schedule"])
        return int(saved["step"])
