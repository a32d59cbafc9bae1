"""A trained run at another strength, as a run of its own: what training with that `lora.strength` would have left."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.files import atomic_folder, atomic_write
from rerouting.core.manifest import write_manifest
from rerouting.core.rundir import RunDir
from rerouting.models.adapter_files import CONFIG, WEIGHTS
from rerouting.models.folders import whole_folder
from rerouting.pipeline.recorded import Recorded, read_record
from rerouting.pipeline.run import claim, execute
from rerouting.pipeline.target_layers import check_strength

AFTER_TRAINING = ("merge", "evaluate")
"""Stages whose time and findings are not taken over."""


def rescale(run: Path, out: Path, strength: float) -> dict[str, Any]:
    """Take over what was trained, weaken or strengthen it, merge, and evaluate where the recipe says so.

    Args:
        run: a finished run; read from and never written to.
        out: folder of the new run; one that was stopped goes on.
        strength: share of the adapter's effect, of that which was trained.

    Returns:
        What summary.json of the new run holds; empty if its recipe evaluates nothing.

    Raises:
        UserError: no finished and undamaged run, a strength that is none, or a folder that holds another run.
    """
    if run.resolve() == out.resolve():
        raise UserError(f"{run} would be written over itself", "give another folder with --out")
    trained = read_record(run)
    if trained.faults:
        raise UserError(
            f"{run} cannot be taken over: {'; '.join(map(str, trained.faults))}",
            f"finish it: rerouting train --config {run}/config.yaml --out {run}, or train it again",
        )
    was = trained.config.lora
    config = replace(trained.config, lora=replace(was, strength=strength))
    check_strength(config.lora)
    with RunDir.create(out) as own:
        claim(own, config)
        if not (own.adapter / CONFIG).is_file():
            _take_over(trained, own, strength / was.strength)
    return execute(config, out)


def _take_over(trained: Recorded, own: RunDir, factor: float) -> None:
    """What preparation and training left; the adapter comes last, for by it a run is known to be trained."""
    run, facts = trained.run, trained.facts
    with atomic_folder(own.streams) as work:
        shutil.copytree(run.streams, work, dirs_exist_ok=True)
    for name in ("places", "metrics"):
        if getattr(run, name).is_file():
            atomic_write(getattr(own, name), getattr(run, name).read_bytes())
    kept = {name: one for name, one in facts.items() if name != "merge"}
    kept["stages"] = {name: one for name, one in facts["stages"].items() if name not in AFTER_TRAINING}
    write_manifest(own.manifest, **kept | {"rescaled_from": str(run.path.resolve())})
    with whole_folder(own.adapter, CONFIG) as work:
        shutil.copyfile(run.adapter / WEIGHTS, work / WEIGHTS)
        adapter = json.loads((run.adapter / CONFIG).read_text(encoding="utf-8"))
        adapter["lora_alpha"] *= factor
        (work / CONFIG).write_text(json.dumps(adapter, indent=2, sort_keys=True), encoding="utf-8")
