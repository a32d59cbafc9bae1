"""What a step computes at least, and how much of the machine's matrix-product rate that is."""

from __future__ import annotations

from dataclasses import replace

from rerouting.models.hardware import measured_rate
from rerouting.models.lora import adapter_parameters
from rerouting.models.shape import ModelShape
from rerouting.training.objective import Objective
from rerouting.training.planning import Stream, step_flops
from rerouting.training.step import Draw


class Work:
    """Counts the operations of each step; nothing, where the model's shape is not known."""

    def __init__(self, objective: Objective, devices: int, shape: ModelShape | None) -> None:
        """Measure the rate, which takes a second.

        Args:
            objective: the losses, on the device of the training.
            devices: how many train together.
            shape: the model's, without adapters.
        """
        self.objective, self.devices, self.shape = objective, devices, shape
        if shape is not None:
            self.rate = measured_rate(objective.device, objective.trunk.dtype)
            matrices = adapter_parameters(objective.model).items()
            self.rank = next(len(item) for name, item in matrices if ".lora_A." in name)

    def done(self, draw: Draw, seconds: float, common: tuple[int, int] = (0, 0)) -> dict[str, float]:
        """TFLOP of a step on its real tokens, and the share of the rate of all devices together.

        Args:
            draw: what the step saw.
            seconds: how long it took.
            common: tokens of the circuit-breaker and the retain examples that ran with another sequence's.
        """
        if self.shape is None:
            return {}
        config, trunk = self.objective.config, self.objective.trunk
        streams = [
            Stream.of([len(one.ids) for one in draw.circuit_breaker], max(config.target_layers), 1),
            Stream.of([len(one.ids) for one in draw.retain], trunk.blocks, 1),
        ]
        streams = [
            replace(stream, mean=stream.mean - spared / stream.sequences)
            for stream, spared in zip(streams, common, strict=True)
        ]
        tflop = step_flops(self.shape, streams, self.rank, first=self.objective.shared).total / 1e12
        return {"tflop": tflop, "matrix_rate_share": tflop / seconds / self.rate / self.devices}
