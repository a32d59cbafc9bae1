"""One run from recipe to summary: prepare, train, merge, evaluate. A stopped run goes on where it stopped.

Under `accelerate launch` the main process does all of it, and the others come in for the training.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rerouting.core.config import dump_yaml, load_config
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, sha256_file, write_jsonl
from rerouting.core.manifest import Stages, environment, write_manifest
from rerouting.core.rundir import RunDir
from rerouting.data.cache import CompletionCache
from rerouting.models.adapter_files import WEIGHTS, check_strength
from rerouting.models.config import ModelConfig
from rerouting.models.digest import weights_digest
from rerouting.models.embedded import EMBEDDED
from rerouting.models.gguf_cache import cache_folder
from rerouting.models.hardware import pick_device, pick_dtype
from rerouting.models.loading import LoadedModel, load, require_chat_template
from rerouting.models.lora import add_lora, save_adapter
from rerouting.models.merging import merge_to
from rerouting.models.shape import shape_of
from rerouting.pipeline.card import write_cards
from rerouting.pipeline.evaluate import evaluate
from rerouting.pipeline.made_of import own_files
from rerouting.pipeline.places import load_places, save_places
from rerouting.pipeline.prepare import Preparation
from rerouting.pipeline.streams import load_streams, save_streams
from rerouting.pipeline.target_layers import blocks_needed, check_layers, with_target_layers
from rerouting.training.config import RunConfig
from rerouting.training.loop import TrainingData, train
from rerouting.training.places import wanted
from rerouting.training.processes import Processes

BATCHING = ("micro_batch", "pack", "recompute", "offload", "shard")
"""Fields of `training` that `what_counts` leaves out."""


@dataclass
class Record:
    """manifest.json, rewritten whole after every stage."""

    run: RunDir
    stages: Stages
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, run: RunDir, config: RunConfig) -> Record:
        """Go on with the manifest of an earlier process, if there is one; this process is added to it."""
        facts = json.loads(run.manifest.read_text()) if run.manifest.exists() else {}
        stages = Stages(facts.pop("stages", None))
        own = environment() | {"folder": str(Path.cwd()), "batching": batching(config)}
        facts["processes"] = [*facts.get("processes", []), own]
        facts |= {"config": {"sha256": sha256_file(run.config)}, "files": own_files(config)}
        return cls(run, stages, facts)

    def note(self, **facts: Any) -> None:
        """Add facts and write."""
        self.facts |= facts
        write_manifest(self.run.manifest, **self.facts, stages=self.stages.as_dict())


def execute(
    config: RunConfig,
    out: Path,
    cache: CompletionCache | None = None,
    watch: Callable[[str, dict[str, Any]], None] = lambda stage, facts: None,
) -> dict[str, Any]:
    """Make the run in `out`, or go on with it.

    Args:
        config: the run.
        out: its folder.
        cache: where completions are kept; None for the one that all runs share.
        watch: called with "load" or "prepare" and the manifest's facts when that stage is done; what it raises ends
            the run.

    Returns:
        What summary.json holds; empty if nothing was to be evaluated.

    Raises:
        UserError: anything that the user can mend; what was already saved stays.
    """
    check_strength(config.lora.strength)
    given, config = config, with_target_layers(config)
    blocks = blocks_needed(config)
    processes = Processes.started(cpu=pick_device(config.model.device).type == "cpu")
    if not processes.main:
        _take_part(config, out, blocks, processes)
        return {}
    with RunDir.create(out) as run:
        claim(run, given)
        if run.readme.exists():
            processes.agree(False)
            return json.loads(run.summary.read_text()) if run.summary.exists() else {}
        record = Record.open(run, given)
        with record.stages.stage("load"):
            base = load(_placed(config, processes))
            require_chat_template(base.tokenizer, config.model.name)
            check_layers(config, base.model, blocks)
            digest = weights_digest(checkpoint_folder(base))
        record.note(
            base_model_path=str(base.base_model_path),
            model={"name": config.model.name, "sha256": digest, "dtype": str(base.dtype)},
            seed=config.seed,
            target_layers=config.losses.target_layers,
            devices={"count": processes.world, "sharded": processes.shards(config.training.shard)},
        )
        watch("load", record.facts)
        cache = cache or CompletionCache(cache_folder() / "completions")
        if not (run.adapter / "adapter_config.json").exists():
            base = prepare_and_train(config, run, record, base, digest, cache, blocks, processes, watch)
        else:
            processes.agree(False)
        if not (run.model / "config.json").exists():
            with record.stages.stage("merge"):
                report = merge_to(
                    run.model,
                    checkpoint_folder(base),
                    run.adapter,
                    trust_remote_code=config.model.trust_remote_code,
                    allow_pickle=config.model.allow_pickle,
                )
            record.note(merge=asdict(report) | {"folder": str(report.folder)})
        if config.evaluation.sets and not run.summary.exists():
            with record.stages.stage("evaluate"):
                rerouted = load(replace(config.model, name=str(run.model)))
                rows, summary = evaluate(config.evaluation, base, rerouted, cache, digest)
            write_jsonl(run.generations, rows)
            record.note()
            summary["stages"] = record.stages.as_dict()
            atomic_write(run.summary, json.dumps(summary, indent=2) + "\n")
        summary = json.loads(run.summary.read_text()) if run.summary.exists() else {}
        write_cards(run, config)
    return summary


def prepare_and_train(
    config: RunConfig,
    run: RunDir,
    record: Record,
    base: LoadedModel,
    digest: str,
    cache: CompletionCache,
    blocks: int,
    processes: Processes,
    watch: Callable[[str, dict[str, Any]], None],
) -> LoadedModel:
    """Build the streams, train adapters on `base`, save them and take them off again; the base as it was before."""
    with record.stages.stage("prepare"):
        data = _prepared(config, run, record, Preparation(config, base, digest, cache))
    hashes = {path.stem: sha256_file(path) for path in sorted(run.streams.glob("*.jsonl"))}
    record.note(data=record.facts.get("data", {}) | {"sha256": hashes})
    watch("prepare", record.facts)
    with record.stages.stage("train"):
        processes.agree(True)
        model = _trained(config, run, base, data, blocks, processes)
        on_hub = not (Path(config.model.name).exists() or config.model.name in EMBEDDED)
        name = config.model.name if on_hub else base.base_model_path
        save_adapter(model, run.adapter, base_model=name, strength=config.lora.strength)
        if processes.shards(config.training.shard):
            del model
            base = load(config.model)
        else:
            model.unload()
    record.note(adapter={"sha256": sha256_file(run.adapter / WEIGHTS)})
    return base


def _prepared(config: RunConfig, run: RunDir, record: Record, preparation: Preparation) -> TrainingData:
    """The streams, and beside them the places that the rerouting loss asks for; what is there is kept."""
    fresh = not run.streams.exists()
    data = preparation.streams() if fresh else load_streams(run.streams)
    if wanted(config.losses) and (fresh or not run.places.exists()):
        record.facts["places"] = save_places(config, preparation.loaded, data, run.places)
    if fresh:
        save_streams(data, run.streams)
        record.facts["data"] = {"sources": preparation.report}
    return load_streams(run.streams)


def _take_part(config: RunConfig, out: Path, blocks: int, processes: Processes) -> None:
    """What a process other than the main one does: train with it, if there is anything to train."""
    base = load(_placed(config, processes))
    if processes.agree(False):
        run = RunDir.of_another_process(out)
        _trained(config, run, base, load_streams(run.streams), blocks, processes)


def _trained(
    config: RunConfig, run: RunDir, base: LoadedModel, data: TrainingData, blocks: int, processes: Processes
) -> Any:
    """The base model with trained adapters."""
    shape = shape_of(base.model, config.model.blocks)
    model = add_lora(base.model, config.lora, blocks - 1, override=config.model.blocks, seed=config.seed)
    train(
        model,
        data,
        config.losses,
        config.training,
        run,
        blocks=blocks,
        pad_id=base.tokenizer.pad_token_id,
        padded_length=config.data.max_retain or 1024,
        seed=config.seed,
        override=config.model.blocks,
        processes=processes,
        shape=shape,
        places=load_places(config, run.places),
    )
    return model


def _placed(config: RunConfig, processes: Processes) -> ModelConfig:
    """Where the model is loaded to: the host, if no device is to hold it whole."""
    if not processes.shards(config.training.shard):
        return config.model
    dtype = pick_dtype(config.model.dtype, pick_device(config.model.device))
    name: Any = str(dtype).removeprefix("torch.")
    return replace(config.model, device="cpu", dtype=name)


def checkpoint_folder(base: LoadedModel) -> Path:
    """The folder of the base checkpoint, as converted or downloaded.

    Raises:
        UserError: it is not on this machine.
    """
    if base.base_model_path is None:
        raise UserError(
            f"the files of {base.name} were not found in the hub's cache", "download them to a folder"
        )
    return base.base_model_path


def claim(run: RunDir, config: RunConfig) -> None:
    """Write config.yaml, or make sure that the one that is there says the same.

    Raises:
        UserError: the folder holds a run of another configuration.
    """
    text = dump_yaml(config)
    begun = any(path.exists() for path in (run.streams, run.checkpoints, run.adapter))
    if not begun or not run.config.exists():
        atomic_write(run.config, text)
    elif _without_batching(load_config(RunConfig, run.config, [])) != _without_batching(config):
        raise UserError(
            f"{run.path} holds a run of another configuration",
            f"choose another --out, or go on with it: rerouting train --config {run.config} --out {run.path}",
        )
    else:
        sys.stderr.write(f"going on with {run.path}\n")


def batching(config: RunConfig) -> dict[str, Any]:
    """What a run that goes on may change: memory and speed depend on it, and the last bits of a sum."""
    own = {name: getattr(config.training, name) for name in BATCHING}
    return own | {"token_budget": config.sampling.token_budget}


def _without_batching(config: RunConfig) -> RunConfig:
    """The configuration without what only memory depends on, which may change when it runs out."""
    return replace(
        config,
        training=config.training.what_counts(),
        sampling=replace(config.sampling, token_budget=None),
    )
