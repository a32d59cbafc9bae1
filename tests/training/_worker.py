"""One process of a training run on a tiny model, for the tests of several: python _worker.py FOLDER OPTIONS(JSON)."""

import atexit
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from rerouting.core.rundir import RunDir
from rerouting.models.config import LoraConfig
from rerouting.models.lora import adapter_copy, add_lora
from rerouting.models.packing import register
from rerouting.training.loop import train
from rerouting.training.processes import Processes
from tests.models.tiny import FAMILIES
from tests.training.test_loop import DATA, LOSSES, OPTIM


def main(folder: Path, options: dict) -> None:
    """Train as the options say; the main process leaves the adapter in adapter.pt."""
    torch.set_num_threads(1)
    atexit.register(_left)
    processes = Processes.started(cpu=True)
    base = FAMILIES[options.pop("family", "llama")]()
    base.set_attn_implementation(register(torch.device("cpu")))
    lora = LoraConfig(rank=4, alpha=4.0, dropout=0.0, init_b_std=0.02)
    model = add_lora(base, lora, 1, seed=0)
    run = RunDir.create(folder) if processes.main else RunDir.of_another_process(folder)
    losses = replace(LOSSES, retain_mean=options.pop("retain_mean", "tokens"))
    optim = replace(OPTIM, **options)
    train(model, DATA, losses, optim, run, blocks=2, pad_id=0, padded_length=16, seed=0, processes=processes)
    sharded = any(isinstance(item, DTensor) for item in model.parameters())
    assert sharded == optim.shard, "the frozen weights are shared out when asked for, and only then"
    if processes.main:
        torch.save(adapter_copy(model), folder / "adapter.pt")
    processes.agree(True)  # the others wait for the file


def _left() -> None:
    """Runs last: gloo's threads must be gone before Python ends, or one time in many the process aborts."""
    if dist.is_initialized():
        os._exit(3)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
