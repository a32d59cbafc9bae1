"""A trained run at another strength, as a run of its own: adapter and model as training with that `lora.strength`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.files import atomic_folder, atomic_write
from rerouting.core.manifest import write_manifest
from rerouting.core.rundir import RunDir
from rerouting.models.adapter_files import CONFIG, WEIGHTS, check_strength
from rerouting.models.folders import whole_folder
from rerouting.pipeline.recorded import Recorded, as_recorded, read_record, stage_differences
from rerouting.pipeline.run import claim, execute
from rerouting.training.processes import refuse_several

TRAINING = ("prepare", "train")
"""Stages whose time is taken over; the others are this run's own."""


def rescale(
    run: Path, out: Path, strength: float, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Take over what was trained, weaken or strengthen it, merge, and evaluate where the recipe says so.

    Args:
        run: a finished run; read from and never written to.
        out: folder of the new run; one that was stopped goes on.
        strength: share of the adapter's effect, of that which was trained (not of that which `run` has).
        tell: called with a line on what is done as recorded.

    Returns:
        What summary.json of the new run holds; empty if its recipe evaluates nothing.

    Raises:
        UserError: no finished and undamaged run, a strength that is none or the run's own, another base model than was
            trained, or a folder that holds another run.
    """
    refuse_several("rescale")
    check_strength(strength)
    run, out = run.expanduser().resolve(), out.expanduser().resolve()
    trained = _whole(run)
    was = trained.config.lora.strength
    if strength == was:
        raise UserError(
            f"{run} is at {was:g} of what was trained already", "give another --strength, or use it as it is"
        )
    config = replace(trained.config, lora=replace(trained.config.lora, strength=strength))
    with RunDir.create(out) as own:
        claim(own, config)
        if not (own.adapter / CONFIG).is_file():
            _take_over(trained, own, config.lora.alpha * strength)
        elif read_record(out).facts.get("adapter") != trained.facts.get("adapter"):
            raise UserError(f"{out} was made of another training", "name another folder with --out")
    tell(f"from {was:g} to {strength:g} of what was trained")
    with as_recorded(trained, tell):
        return execute(config, out, watch=lambda stage, facts: _same_base(trained, stage, facts))


def _whole(run: Path) -> Recorded:
    """The record of a run that is finished, with all that is to be taken over."""
    found = read_record(run)
    needed = (found.run.streams, found.run.adapter / CONFIG, found.run.adapter / WEIGHTS)
    faults = [*map(str, found.faults), *(f"{path} is missing" for path in needed if not path.exists())]
    if faults:
        raise UserError(f"{run} cannot be taken over: {'; '.join(faults)}", "finish it, or train it again")
    return found


def _same_base(trained: Recorded, stage: str, facts: dict[str, Any]) -> None:
    deciding = [str(one) for one in stage_differences(trained, stage, facts) if one.decides]
    if deciding:
        raise UserError(
            f"another base than was trained: {'; '.join(deciding)}", "put it back, or train again"
        )


def _take_over(trained: Recorded, own: RunDir, alpha: float) -> None:
    """What preparation and training left; the adapter comes last, for by it a run is known to be trained."""
    run, facts = trained.run, trained.facts
    with atomic_folder(own.streams) as work:
        shutil.copytree(run.streams, work, dirs_exist_ok=True)
    for name in ("places", "metrics"):
        if getattr(run, name).is_file():
            atomic_write(getattr(own, name), getattr(run, name).read_bytes())
    kept = {name: one for name, one in facts.items() if name != "merge"}
    kept["stages"] = {name: one for name, one in facts["stages"].items() if name in TRAINING}
    write_manifest(own.manifest, **kept | {"rescaled_from": str(run.path)})
    with whole_folder(own.adapter, CONFIG) as work:
        shutil.copyfile(run.adapter / WEIGHTS, work / WEIGHTS)
        adapter = json.loads((run.adapter / CONFIG).read_text(encoding="utf-8"))
        (work / CONFIG).write_text(
            json.dumps(adapter | {"lora_alpha": alpha}, indent=2, sort_keys=True), "utf-8"
        )
