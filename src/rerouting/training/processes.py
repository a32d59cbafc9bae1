"""Several processes on one step, as `accelerate launch` starts them: each takes a share of the examples.

Adapters are small, so every process holds all of them, and their gradients are summed once a step, in one message,
after both backward passes: the result of DistributedDataParallel without its wrapper, or a message for every
micro-batch. Under FSDP2 the frozen blocks are sharded and gathered as they are needed; adapters stay whole, so that
checkpoints know nothing of the number of processes, and a run may go on with another.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from rerouting.core.errors import UserError
from rerouting.data.formatting import Example
from rerouting.models.hardware import pick_attention
from rerouting.models.layers import decoder_blocks
from rerouting.models.lora import adapter_parameters

CPU = torch.device("cpu")
Value = TypeVar("Value", bool, float)


@dataclass(frozen=True)
class Processes:
    """This process among all that train together.

    Attributes:
        rank: its number.
        world: how many there are.
        sharded: whether accelerate was told to shard the model (FSDP2); see `shards`.
        device: this process's own.
    """

    rank: int = 0
    world: int = 1
    sharded: bool = False
    device: torch.device = CPU

    @classmethod
    def started(cls, cpu: bool) -> Processes:
        """As `accelerate launch` set them up; one process without it.

        Raises:
            UserError: DeepSpeed or FSDP 1 was asked for.
        """
        AcceleratorState._reset_state(reset_partial_state=True)  # or a second run keeps the first's
        # the others wait while one prepares the data
        patience = InitProcessGroupKwargs(timeout=timedelta(days=7))
        accelerator = Accelerator(mixed_precision="no", cpu=cpu, kwargs_handlers=[patience])
        kind = str(accelerator.distributed_type).rpartition(".")[-1]
        if kind == "DEEPSPEED":
            raise UserError(
                "DeepSpeed cannot shard this model for training",
                "use FSDP2: accelerate launch --use_fsdp --fsdp_version 2 (docs/performance.md)",
            )
        if kind == "FSDP" and not accelerator.is_fsdp2:
            raise UserError("FSDP 1 is not supported", "add --fsdp_version 2 to accelerate launch")
        leave_at_exit()
        return cls(accelerator.process_index, accelerator.num_processes, kind == "FSDP", accelerator.device)

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def shards(self, wanted: bool) -> bool:
        """Whether frozen weights are shared out: as accelerate or the recipe (`wanted`) asks, if there are others."""
        return self.world > 1 and (wanted or self.sharded)

    def agree(self, value: Value) -> Value:
        """The main process's value, in every process; the others wait for it."""
        if self.world == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    def check(self, micro_batch: int, sharded: bool, **sizes: int) -> None:
        """Refuse batches that leave a process without work, or sharded weights that somebody waits for in vain.

        Args:
            micro_batch: examples of one pass.
            sharded: whether a pass gathers weights from all processes, which then have to make as many.
            sizes: examples of a step, by option.

        Raises:
            UserError: names the option.
        """
        for name, size in sizes.items():
            fewest, most = size // self.world, -(-size // self.world)
            if not fewest:
                raise UserError(
                    f"training.{name} is {size}, too few for {self.world} processes",
                    f"choose at least {self.world}",
                )
            if sharded and -(-fewest // micro_batch) != -(-most // micro_batch):
                raise UserError(
                    f"training.{name} is {size}: some of {self.world} processes would make more passes than others",
                    f"choose a multiple of {self.world}",
                )

    def share(self, examples: Sequence[Example]) -> list[Example]:
        """This process's examples of a step: about as many as every other's, and about as many tokens."""
        ordered = sorted(examples, key=lambda example: len(example.ids), reverse=True)
        rounds = [ordered[start : start + self.world] for start in range(0, len(ordered), self.world)]
        turns = [
            (row, self.rank if at % 2 == 0 else self.world - 1 - self.rank) for at, row in enumerate(rounds)
        ]
        return [row[turn] for row, turn in turns if turn < len(row)]

    def sum(self, *tensors: Tensor) -> None:
        """Replace tensors of one device and number format by their sums over all processes, in one message."""
        if self.world == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [one.numel() for one in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def shard(self, model: Any, override: str | None = None) -> None:
        """Share out the frozen weights of the decoder blocks (FSDP2), and bring the model to this process's device.

        All but the blocks stays whole in every process, the adapters too. One block at a time is on the device whole.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        found, kind = decoder_blocks(model, override), self.device.type
        options: dict[str, Any] = {"mesh": init_device_mesh(kind, (self.world,))}
        for block in found.blocks:
            fully_shard(block, ignored_params=_trained(block), **options)
        inside = {id(item) for item in found.blocks.parameters()}
        outside = {item for item in found.owner.parameters() if id(item) not in inside}
        fully_shard(found.owner, ignored_params=outside | _trained(found.owner), **options)
        model.to(self.device)
        model.set_attn_implementation(pick_attention("auto", self.device))


def refuse_several(verb: str) -> None:
    """Refuse to be one of several processes.

    Raises:
        UserError: the launcher started more than one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"{verb} runs in one process", "start it without accelerate launch")


def leave_at_exit() -> None:
    """Have this process leave its group, if it is in one, while Python still runs.

    gloo's own threads may still hold tensors that Python made; freeing those after Python has ended aborts the process
    (github.com/pytorch/pytorch/pull/179291), and a finished run would end with an error. NCCL has no such threads, and
    leaving its group after a failure may wait for ever.
    """
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized() and dist.get_backend() == dist.Backend.GLOO:
        dist.destroy_process_group()


def _trained(module: nn.Module) -> set[nn.Parameter]:
    return set(adapter_parameters(module).values())
