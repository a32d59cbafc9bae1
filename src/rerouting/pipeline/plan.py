"""What a run would cost: parameters, operations, memory and time, before any weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl
from rerouting.data.config import SourceConfig
from rerouting.data.contexts import MOST
from rerouting.models.hardware import DTYPES, measured_rate, pick_attention, pick_device, pick_dtype
from rerouting.models.layers import decoder_blocks
from rerouting.models.shape import ModelShape, meta_model, shape_of
from rerouting.pipeline.target_layers import at_depths, blocks_needed, check_layers
from rerouting.training.config import RunConfig
from rerouting.training.plan_config import PlanConfig
from rerouting.training.planning import StepSetup, Stream, step_flops, step_memory, step_seconds

AUTHORS_MEAN = 375
"""Real tokens a sequence of the authors' mix: about 12,000 (10,500 to 14,000) in a step of 16 + 16."""
SAMPLED_PROMPT = 48
"""Prompt tokens, template included, assumed beside an on-policy completion: the quickstart's mean."""


def plan(config: RunConfig, options: PlanConfig) -> dict[str, Any]:
    """Count, estimate and (without `rate`) measure.

    Args:
        config: the run, as for `execute`.
        options: what is assumed of data and machine.

    Returns:
        What `rerouting plan --json` prints: bytes, TFLOP, seconds.

    Raises:
        UserError: an option out of range, a model whose config cannot be read, layers that it does not have.
    """
    _check(options)
    if config.losses.target_depths is None:
        blocks_needed(config)
    device, dtype = _machine(config, options)
    model, source = meta_model(config.model, options.shape)
    config = at_depths(config, len(decoder_blocks(model, config.model.blocks)))
    blocks = blocks_needed(config)
    check_layers(config, model, blocks)
    shape = shape_of(model, config.model.blocks)
    streams, assumed = _streams(config, options, blocks)
    layout = _layout(config, options, device, dtype)
    return {
        "model": {"name": config.model.name, "shape": source, "device": str(device), "dtype": _text(dtype)},
        "parameters": {
            "total": shape.parameters,
            "trunk": shape.trunk(blocks),
            "trunk_blocks": blocks,
            "blocks": len(shape.blocks),
            "trainable": shape.lora(config.lora.rank, blocks) - shape.lora(config.lora.rank, config.lora.first_block),
        },
        "tokens": {
            "source": assumed,
            "step": sum(stream.tokens for stream in streams),
            "circuit_breaker": asdict(streams[0]),
            "retain": asdict(streams[1]),
        },
        "devices": {"count": options.devices, "strategy": options.strategy, "micro_batch": layout.micro_batch},
        **_costs(config, options, shape, streams, layout, device, dtype),
        "notes": _notes(config, options, shape, blocks),
    }  # fmt: skip


def _costs(
    config: RunConfig,
    options: PlanConfig,
    shape: ModelShape,
    streams: Sequence[Stream],
    layout: StepSetup,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Operations, memory and time, each without and with recomputation."""
    rate, said = options.rate, "given"
    if rate is None:
        rate, said = measured_rate(device, dtype), f"measured here: {_text(dtype)} on {device}"
    costs: dict[str, Any] = {
        "tflop": {},
        "memory": {},
        "time": {"rate": rate, "rate_source": said, "efficiency": options.efficiency},
    }
    for name, recompute in (("plain", False), ("recompute", True)):
        flops = step_flops(shape, streams, config.lora.rank, recompute, config.lora.first_block)
        memory = step_memory(shape, streams, layout, recompute)
        seconds = step_seconds(flops.total, rate, options.efficiency, options.devices)
        parts = {key: value / 1e12 for key, value in asdict(flops).items()}
        costs["tflop"][name] = {**parts, "total": flops.total / 1e12}
        costs["memory"][name] = {**asdict(memory), "total": memory.total}
        costs["time"][name] = {"step": seconds, "run": seconds * config.training.steps}
    return costs


def _check(options: PlanConfig) -> None:
    for name in ("tokens_per_step", "longest", "devices", "rate"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name} is {value}", "give a number above 0")
    if not 0 < options.efficiency <= 1:
        raise UserError(f"--efficiency is {options.efficiency}", "give a share, above 0 and at most 1")


def _machine(config: RunConfig, options: PlanConfig) -> tuple[torch.device, torch.dtype]:
    """The run's device and number format; with `rate` the device may be one that this machine lacks."""
    wanted = config.model.device
    try:
        device = pick_device(wanted)
    except UserError as error:
        if not _is_device(wanted):
            raise
        if options.rate is None:
            raise UserError(error.problem, "give its --rate, or set model.device to auto or cpu") from error
        usual = "bfloat16" if config.model.dtype == "auto" else config.model.dtype
        return torch.device(wanted), DTYPES[usual]
    return device, pick_dtype(config.model.dtype, device)


def _is_device(name: str) -> bool:
    try:
        return bool(torch.device(name).type)
    except RuntimeError:
        return False


def _layout(config: RunConfig, options: PlanConfig, device: torch.device, dtype: torch.dtype) -> StepSetup:
    return StepSetup(
        rank=config.lora.rank,
        state_bytes=dtype.itemsize,
        attention=pick_attention(config.model.attention, device),
        device=device.type,
        micro_batch=config.training.micro_batch,
        devices=options.devices,
        strategy=options.strategy,
        first=config.lora.first_block,
    )


def _streams(config: RunConfig, options: PlanConfig, blocks: int) -> tuple[list[Stream], str]:
    """Circuit-breaker and retain stream, and where their lengths come from."""
    losses, data, optim = config.losses, config.data, config.training
    targets = len(losses.target_layers)
    held = blocks + 1 if losses.retain_layers == "all" else targets
    harmful = _limit(data.max_prompt, data.max_response)
    sequences = [optim.batch_size, optim.retain_batch_size or optim.batch_size]
    streams = [
        Stream(
            sequences[0],
            max(losses.target_layers),
            targets,
            *_assumed(config, data.circuit_breaker, harmful, data.contexts),
        ),
        Stream(
            sequences[1],
            blocks,
            held,
            *_assumed(config, data.retain, data.max_retain, data.retain_contexts),
        ),
    ]
    behind = (
        f", 1 to {MOST} answers before requests with texts" if data.contexts + data.retain_contexts else ""
    )
    said = (
        f"assumed: {AUTHORS_MEAN} a sequence (the authors' mix), {SAMPLED_PROMPT} + sampling.max_new_tokens where "
        f"every source is on-policy{behind}; --tokens_per_step or --run say better"
    )
    if options.run is not None:
        names = ("circuit_breaker", "retain")
        folder = Path(options.run) / "streams"
        streams = [
            _read(stream, folder / f"{name}.jsonl") for stream, name in zip(streams, names, strict=True)
        ]
        said = f"true lengths in {folder}"
    if options.tokens_per_step is not None:
        mean = options.tokens_per_step / sum(sequences)
        longest = [max(stream.longest, round(mean)) for stream in streams]
        streams = [
            replace(stream, mean=mean, mean_square=mean**2, longest=most)
            for stream, most in zip(streams, longest, strict=True)
        ]
        said = "given: --tokens_per_step, shared evenly by the sequences"
    if options.longest is not None:
        streams = [replace(stream, longest=options.longest) for stream in streams]
    return streams, said


def _limit(*parts: int | None) -> int | None:
    """The sum of limits, none if one of them is missing."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _assumed(
    config: RunConfig, sources: Sequence[SourceConfig], limit: int | None, contexts: float
) -> tuple[float, float, int]:
    """Mean, mean square and longest of a stream's lengths before its data are known.

    They are equal but for texts before a share of the requests; the longest reaches the limit, or twice the mean
    (on-policy) with the most texts before it.
    """
    sampled = bool(sources) and all(source.on_policy for source in sources)
    mean = SAMPLED_PROMPT + _mean_limit(config, sources) if sampled else AUTHORS_MEAN
    most = limit if limit is not None else 2 * mean
    text = _mean_limit(config, config.data.retain) if contexts else 0
    behind = [min(mean + texts * text, most) for texts in range(1, MOST + 1)]
    shares = [(1 - contexts, min(mean, most)), *((contexts / MOST, length) for length in behind)]
    return (
        sum(share * length for share, length in shares),
        sum(share * length**2 for share, length in shares),
        min(most, 2 * mean + MOST * text) if sampled else most,
    )


def _read(stream: Stream, file: Path) -> Stream:
    """The same stream with the lengths of a run's file.

    Raises:
        UserError: there is no such file, or nothing in it.
    """
    if not file.is_file():
        raise UserError(
            f"there is no {file}", "--run wants a run directory whose streams were built by train"
        )
    lengths = [len(row["ids"]) for row in read_jsonl(file)]
    if not lengths:
        raise UserError(f"{file} is empty", "give another run, or --tokens_per_step")
    return replace(Stream.of(lengths, stream.blocks, stream.states), sequences=stream.sequences)


def _notes(config: RunConfig, options: PlanConfig, shape: ModelShape, blocks: int) -> list[str]:
    """What the figures leave out."""
    notes = [
        "operations are the minimum on real tokens: reference forward, adapted forward, backward to the inputs",
        "memory is for micro-batches of the longest sequences; the framework's own (a CUDA context, 1 to 2 GB) is "
        "not in it",
        "time is the training steps': sampling, held-out measures, merging and evaluation come on top",
    ]
    if config.lora.dropout:
        notes.append("the noise that dropout reads, up to four times the largest input, is not in the memory")
    if options.devices > 1:
        notes.append("communication between devices is not in the time")
    if options.devices > max(config.training.batch_size, 1):
        notes.append("there are fewer circuit-breaker sequences a step than devices: some would stand idle")
    if any(block.experts for block in shape.blocks[:blocks]):
        notes.append(
            "experts: PEFT also merges adapters into whole stacks, in each forward pass; the copies are in the "
            "memory, the work is not in the operations"
        )
    return notes


def _text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _mean_limit(config: RunConfig, sources: Sequence[SourceConfig]) -> int:
    """Where completions are cut, in the mean over a stream's sources."""
    limits = [(source.weight, source.max_new_tokens or config.sampling.max_new_tokens) for source in sources]
    return round(sum(weight * limit for weight, limit in limits) / (sum(weight for weight, _ in limits) or 1))
