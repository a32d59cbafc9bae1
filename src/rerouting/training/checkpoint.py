"""Checkpoints of a training run: adapters and optimiser in safetensors, everything else in JSON; no pickles.

Random numbers are drawn from generators seeded by (seed, step), and the data position is a function of the step, so
the step alone restores both; a schedule that observes has its state beside it. On a CPU a resumed run ends with the
adapter of an uninterrupted one, bit for bit.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from rerouting.core.errors import UserError
from rerouting.core.files import atomic_folder

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save(
    folder: Path,
    step: int,
    parameters: dict[str, Parameter],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
) -> None:
    """Write `folder/step-N`, whole or not at all, then remove this run's older checkpoints but `keep`."""
    with atomic_folder(folder / f"step-{step:06d}") as target:
        save_file(
            {name: value.detach().contiguous().cpu() for name, value in parameters.items()},
            target / "adapter.safetensors",
        )
        moments = {
            f"{name}/{key}": optimizer.state[value][key].detach().contiguous().cpu()
            for name, value in parameters.items()
            if value in optimizer.state
            for key in MOMENTS
        }
        save_file(moments, target / "optimizer.safetensors")
        (target / "state.json").write_text(json.dumps({"step": step, **state}, indent=2))
    for old in found(folder)[: -max(keep, 1)]:
        shutil.rmtree(old)


def found(folder: Path) -> list[Path]:
    """Checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-??????") if path.is_dir())


def load_latest(
    folder: Path, parameters: dict[str, Parameter], optimizer: torch.optim.Optimizer, expected: dict[str, Any]
) -> dict[str, Any]:
    """Restore the newest checkpoint and return its step and state, as given to `save`; step 0 if there is none.

    Raises:
        UserError: the checkpoint is unreadable, or belongs to another configuration.
    """
    checkpoints = found(folder)
    if not checkpoints:
        return {"step": 0}
    newest = checkpoints[-1]
    older = f"remove {newest} to go on from {checkpoints[-2].name if len(checkpoints) > 1 else 'the start'}"
    try:
        state = json.loads((newest / "state.json").read_text())
        weights = load_file(newest / "adapter.safetensors")
        moments = load_file(newest / "optimizer.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"checkpoint {newest} cannot be read ({error})", older) from None
    for key, value in expected.items():
        if state.get(key) != value:
            raise UserError(
                f"checkpoint {newest} was made with another {key.replace('_', ' ')}",
                "use a new run directory, or the configuration in its config.yaml",
            )
    if weights.keys() != parameters.keys():
        raise UserError(f"checkpoint {newest} holds other adapters than this model has", older)
    _restore(parameters, optimizer, weights, moments)
    return dict(state)


def _restore(
    parameters: dict[str, Parameter],
    optimizer: torch.optim.Optimizer,
    weights: dict[str, Tensor],
    moments: dict[str, Tensor],
) -> None:
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(weights[name])
            if f"{name}/step" in moments:
                optimizer.state[value] = {key: moments[f"{name}/{key}"].to(value.device) for key in MOMENTS}
                optimizer.state[value]["step"] = moments[f"{name}/step"]
