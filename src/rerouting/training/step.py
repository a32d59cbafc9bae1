"""The gradients of one step, by whatever way fits into memory."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rerouting.core.errors import UserError
from rerouting.data.formatting import Example
from rerouting.models.lora import adapter_parameters
from rerouting.models.memory import free_memory, is_out_of_memory
from rerouting.models.recomputing import offloaded, recomputed
from rerouting.training.config import OptimConfig
from rerouting.training.objective import Measures, Objective
from rerouting.training.processes import Processes


@dataclass(frozen=True)
class Draw:
    """What one step sees, in all processes together."""

    circuit_breaker: list[Example]
    retain: list[Example]
    reroute_weight: float
    retain_weight: float
    seed: int


@dataclass
class Stepper:
    """Computes gradients; when memory runs out, in smaller micro-batches and then with recomputation.

    Attributes:
        objective: the losses.
        optim: options of the loop.
        processes: who else works on the step.
        autocast: whether adapters need it (those that compute by PEFT's own forward, in bfloat16).
        recompute: whether blocks are run again in the backward pass.
    """

    objective: Objective
    optim: OptimConfig
    processes: Processes
    autocast: bool = False
    recompute: bool = field(init=False)

    def __post_init__(self) -> None:
        self.recompute = self.optim.recompute
        self.parameters = list(adapter_parameters(self.objective.model).values())

    def gradients(self, draw: Draw) -> tuple[Measures, Measures]:
        """Add the gradients of both losses to the adapters'; what was measured, over all processes.

        Raises:
            UserError: memory is too small for a single sequence, or for this micro-batch on one of several processes.
        """
        while True:
            try:
                found = self._once(draw)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                for item in self.parameters:
                    item.grad = None
                self._make_room(error)
        add_up = self.processes.sum
        add_up(*(item.grad for item in self.parameters if item.grad is not None))
        rerouted, retained = found
        return rerouted.settled(add_up), retained.settled(add_up)

    def _once(self, draw: Draw) -> tuple[Measures, Measures]:
        objective, processes, device = self.objective, self.processes, self.objective.device

        def backward(loss: Tensor) -> None:
            loss.backward()  # type: ignore[no-untyped-call]

        with ExitStack() as ways:
            ways.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=self.autocast))
            if self.recompute:
                ways.enter_context(recomputed(objective.trunk.all_blocks))
            if self.optim.offload:
                ways.enter_context(offloaded(device))
            mine = processes.share(draw.circuit_breaker)
            rerouted = objective.reroute(mine, draw.reroute_weight, draw.seed, backward, draw.circuit_breaker)
            mine = processes.share(draw.retain)
            retained = objective.retain(mine, draw.retain_weight, backward, draw.retain)
        return rerouted, retained

    def _make_room(self, error: BaseException) -> None:
        """Take the next thriftier way, or give up."""
        objective = self.objective
        if self.processes.world > 1:
            raise UserError(
                f"memory ran out in process {self.processes.rank}",
                "lower training.micro_batch, or set training.recompute",
            ) from error
        if objective.micro_batch > 1:
            objective.micro_batch //= 2
            way = f"micro-batches of {objective.micro_batch}"
        elif not self.recompute:
            self.recompute, way = True, "recomputation"
        else:
            raise UserError(
                "memory is too small for one sequence",
                "set training.offload, lower data.max_prompt, max_response and max_retain, or take a smaller model",
            ) from error
        sys.stderr.write(f"memory ran out: going on with {way}\n")
        free_memory()
