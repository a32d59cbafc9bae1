"""The training loop, top to bottom.

Source: Zou et al. 2024, Algorithm 1, and the authors' trainer (AdamW, constant rate, no warm-up, no weight decay,
gradients clipped at 1). Deviation: the streams are drawn independently, and each has its own backward pass.
One process or several run the same code: see `training.processes`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rerouting.core.files import append_jsonl, read_jsonl, sha256_of, write_jsonl
from rerouting.core.manifest import peak_memory_mib
from rerouting.core.progress import bar
from rerouting.core.prompts import Prompt
from rerouting.core.rundir import RunDir
from rerouting.data.formatting import Example
from rerouting.data.mixing import batch_indices
from rerouting.models.lean import lean
from rerouting.models.lora import (
    adapter_copy,
    adapter_parameters,
    check_trained,
    first_adapted,
    has_dropout,
    train_adapters,
    without_adapters,
    without_gradient,
)
from rerouting.models.scoring import response_nll
from rerouting.models.shape import ModelShape
from rerouting.models.trunk import Trunk
from rerouting.pictures.opening import named
from rerouting.training import checkpoint, guards
from rerouting.training.config import LossConfig, OptimConfig
from rerouting.training.objective import Measures, Objective
from rerouting.training.processes import Processes
from rerouting.training.step import Draw, Stepper
from rerouting.training.weights import Weights
from rerouting.training.work import Work


@dataclass(frozen=True)
class TrainingData:
    """Tokenised streams; the held-out ones are never trained on and may be empty."""

    circuit_breaker: Sequence[Example]
    retain: Sequence[Example]
    held_out_harmful: Sequence[Example] = ()
    held_out_benign: Sequence[Example] = ()


def train(
    model: Any,
    data: TrainingData,
    losses: LossConfig,
    optim: OptimConfig,
    run: RunDir,
    *,
    blocks: int,
    pad_id: int,
    padded_length: int,
    seed: int,
    override: str | None = None,
    processes: Processes | None = None,
    shape: ModelShape | None = None,
    places: Mapping[str, Tensor] | None = None,
) -> None:
    """Train the adapters of `model` in place; resumes from the newest checkpoint of `run`.

    Args:
        model: causal language model with LoRA adapters; the same in every process.
        data: the streams.
        losses: objective.
        optim: loop.
        run: run directory; the main process writes metrics.jsonl and checkpoints.
        blocks: blocks that are run: those with adapters.
        pad_id: token that fills a batch.
        padded_length: divisor of the authors' retain loss.
        seed: seed of data order, dropout and random targets.
        override: dotted path of the decoder blocks, when they cannot be found.
        processes: all that train together; None for this one alone.
        shape: the model's, to log the work of a step and the share of the machine's rate that was reached.
        places: mean states (L, D) of the base by name, where the rerouting loss asks for them.

    Raises:
        UserError: NaN, adapters that do not move, benign loss that runs away, unusable checkpoint, no memory.
    """
    processes, retain_size = processes or Processes(), optim.retain_batch_size or optim.batch_size
    processes.check(
        optim.micro_batch,
        processes.shards(optim.shard),
        batch_size=optim.batch_size,
        retain_batch_size=retain_size,
    )
    model.eval()
    trunk, parameters = Trunk(model, blocks, override), adapter_parameters(model)
    packed = optim.pack and _packs(trunk, data, processes)
    objective = Objective(
        trunk,
        losses,
        pad_id=pad_id,
        padded_length=padded_length,
        micro_batch=optim.micro_batch,
        packed=packed,
        once=packed and not has_dropout(model),
        shared=first_adapted(model, override),
        places=places,
    )
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=optim.learning_rate, weight_decay=optim.weight_decay, fused=True
    )
    weights = Weights(losses.schedule, optim.steps, processes)
    identity = _identity(objective, data, optim, seed, processes)
    before = adapter_copy(model)
    done = weights.resumed(checkpoint.load_latest(run.checkpoints, parameters, optimizer, identity))
    _forget_rows_after(run, done, processes)
    silent: set[str] | None = None

    with lean(model) as ways, bar("training", total=optim.steps, done=done) as progress:
        autocast = trunk.dtype is torch.bfloat16 and ways["adapters"] < len(parameters) // 2
        if processes.shards(optim.shard):
            processes.shard(model, override)
            objective.device = processes.device
        stepper = Stepper(objective, optim, processes, autocast)
        held_out = _HeldOut(model, objective, data, autocast, pad_id)
        work = Work(objective, processes.world, shape)
        for step in range(done + 1, optim.steps + 1):
            began = time.perf_counter()
            draw = Draw(
                _draw(data.circuit_breaker, optim.batch_size, step, seed, optim.take_turns),
                _draw(data.retain, retain_size, step, seed + 1, optim.take_turns),
                *weights(step),
                seed * 1_000_003 + step,
            )
            torch.manual_seed(draw.seed + (processes.rank << 40))
            train_adapters(model, True)
            rerouted, retained = stepper.gradients(draw)
            train_adapters(model, False)
            if step - done <= guards.WATCHED_STEPS:  # reads every gradient: not for the whole run
                silent = guards.check_gradients(step - done, silent, without_gradient(model))
            guards.check_finite(step, rerouting_loss=rerouted.loss, retain_loss=retained.loss)
            norm = _update(optimizer, optim, step)
            weights.observe(retained)
            last = step == optim.steps
            row = _row(step, draw, rerouted, retained, losses, norm, began)
            row |= work.done(draw, row["seconds"], (rerouted.common, retained.common))
            if step == 1 or step % optim.eval_every == 0 or last:
                row |= held_out.measure()
            if step == 1 or step % optim.log_every == 0 or step % optim.eval_every == 0 or last:
                guards.check_finite(step, held_out_benign_loss=row.get("benign_loss", 0.0))
                if processes.main:
                    append_jsonl(run.metrics, row)
                final = optim.max_final_benign_rise if last else None
                guards.check_benign(row, optim.max_benign_rise if final is None else final)
            if processes.main and (step % optim.save_every == 0 or last):
                state = identity | weights.state()
                checkpoint.save(run.checkpoints, step, parameters, optimizer, state, optim.keep_checkpoints)
            progress.advance(1)
            progress.note(_told(rerouted, retained))
    check_trained(before, model)


def _told(rerouted: Measures, retained: Measures) -> str:
    cosines = " ".join(f"{value:.2f}" for value in rerouted.mean("cosine"))
    return f"cosine {cosines}  retain {retained.loss:.3f}"


def _packs(trunk: Trunk, data: TrainingData, processes: Processes) -> bool:
    """Whether the model's family can be packed, tried on the longest sequence of the run with another behind it."""
    texts = (one.ids for one in (*data.circuit_breaker, *data.retain) if not one.images)
    ids = sorted(texts, key=len)
    if not ids:
        return False
    why = trunk.packs([ids[len(ids) // 2], ids[-1]])
    if why and processes.main:
        sys.stderr.write(f"sequences are padded, not packed: {why}\n")
    return not why


def _update(optimizer: torch.optim.Optimizer, optim: OptimConfig, step: int) -> float:
    """Change the adapters by their gradients, which are cleared; their norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(optim, step)
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, optim.max_grad_norm or math.inf))
    guards.check_finite(step, gradient_norm=norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def learning_rate(optim: OptimConfig, step: int) -> float:
    """The rate of a step, counted from 1: linear warm-up, plateau, linear decay, each optional."""
    warm = min(1.0, step / optim.warmup_steps) if optim.warmup_steps else 1.0
    left = 1.0
    if optim.decay_from is not None and step > optim.decay_from * optim.steps:
        left = (optim.steps + 1 - step) / (optim.steps + 1 - optim.decay_from * optim.steps)
    return optim.learning_rate * warm * left


def _draw(examples: Sequence[Example], size: int, step: int, seed: int, turns: bool = False) -> list[Example]:
    """The examples of a step, counted from 1; with `turns` an even step has those with pictures, an odd one others."""
    own = [one for one in examples if bool(one.images) == (step % 2 == 0)] if turns else []
    if own and len(own) < len(examples):
        examples, step = own, (step + 1) // 2
    return [examples[index] for index in batch_indices(len(examples), size, step - 1, seed)]


def _identity(
    objective: Objective, data: TrainingData, optim: OptimConfig, seed: int, processes: Processes
) -> dict[str, Any]:
    """What a checkpoint must have been made with."""
    identity: dict[str, Any] = {
        "configuration": sha256_of([objective.config.what_counts(), optim.what_counts(), seed]),
        "data": _fingerprint(data),
    }
    if objective.places:
        identity["places"] = sha256_of({name: item.tolist() for name, item in objective.places.items()})
    if objective.by_sequence:  # what is compared are the sequences of a micro-batch
        identity["micro_batch_or_processes"] = [optim.micro_batch, processes.world]
    return identity


def _fingerprint(data: TrainingData) -> str:
    return sha256_of(
        [
            [named(Prompt(example.ids, example.images)) for example in part]
            for part in (data.circuit_breaker, data.retain)
        ]
    )


def _forget_rows_after(run: RunDir, step: int, processes: Processes) -> None:
    """Drop the rows of steps that a kill lost, so that a resumed log has each step once."""
    if processes.main and run.metrics.exists():
        rows = read_jsonl(run.metrics, tolerate_torn=True)
        write_jsonl(run.metrics, [row for row in rows if row["step"] <= step])


def _row(
    step: int,
    draw: Draw,
    rerouted: Measures,
    retained: Measures,
    losses: LossConfig,
    norm: float,
    began: float,
) -> dict[str, Any]:
    seconds = time.perf_counter() - began
    layers = [str(layer) for layer in losses.target_layers]
    return {
        "step": step,
        "reroute_loss": rerouted.loss,
        "retain_loss": retained.loss,
        "reroute_coefficient": draw.reroute_weight,
        "retain_coefficient": draw.retain_weight,
        "cosine": dict(zip(layers, rerouted.mean("cosine"), strict=True)),
        "norm": dict(zip(layers, rerouted.mean("norm"), strict=True)),
        "retain_distance": retained.overall("distance"),
        "retain_relative": retained.overall("relative"),
        "gradient_norm": norm,
        "tokens_per_second": (rerouted.passed + retained.passed) / seconds,
        "padding": (rerouted.padding + retained.padding) / (rerouted.passed + retained.passed),
        "common": (rerouted.common + retained.common) / (rerouted.passed + retained.passed),
        "seconds": seconds,
        "peak_memory_mib": peak_memory_mib(),
    }


@dataclass
class _HeldOut:
    """Held-out measures, with the base model's benign loss measured once."""

    model: Any
    objective: Objective
    data: TrainingData
    autocast: bool
    pad_id: int
    base: float | None = None

    @torch.no_grad()
    def measure(self) -> dict[str, Any]:
        row: dict[str, Any] = {}
        device = self.objective.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
            if self.data.held_out_harmful:
                measures = self.objective.reroute(self.data.held_out_harmful, 1.0, 0, None)
                layers = [str(layer) for layer in self.objective.config.target_layers]
                row["held_out_cosine"] = dict(zip(layers, measures.mean("cosine"), strict=True))
            if self.data.held_out_benign:
                if self.base is None:
                    with without_adapters(self.model):
                        self.base = self._benign_loss()
                row |= {"benign_loss_base": self.base, "benign_loss": self._benign_loss()}
        return row

    def _benign_loss(self) -> float:
        """Mean over all response tokens, nats a token."""
        sequences = [
            (Prompt(example.ids, example.images), example.n_prompt) for example in self.data.held_out_benign
        ]
        return float(torch.cat(response_nll(self.model, sequences, pad_id=self.pad_id)).mean())
