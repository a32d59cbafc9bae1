"""Base and rerouted model: a run's, or two that were named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rerouting.core.config import load_config
from rerouting.core.errors import UserError
from rerouting.core.files import sha256_of
from rerouting.core.findings import MODELS
from rerouting.core.rundir import is_run
from rerouting.models.config import ModelConfig
from rerouting.models.digest import weights_digest
from rerouting.models.loading import LoadedModel, load
from rerouting.training.config import RunConfig


def pair_of(model: str, base: ModelConfig | None) -> dict[str, LoadedModel]:
    """Both models by name.

    Args:
        model: a run directory, or with `base` any model with circuit breakers.
        base: what it was made from.

    Raises:
        UserError: neither can be had, or they do not share a vocabulary.
    """
    if base is None:
        return dict(zip(MODELS, models_of(Path(model)), strict=True))
    if is_run(Path(model)):
        raise UserError(f"{model} is a run, which knows its base", "leave base out")
    found = load(base), load(replace(base, name=model, revision=None))
    if found[0].tokenizer.get_vocab() != found[1].tokenizer.get_vocab():
        raise UserError(f"{base.name} and {model} do not share a vocabulary", "name the right base")
    return dict(zip(MODELS, found, strict=True))


def digest(loaded: LoadedModel) -> str:
    """Names a model by its weights, or by its hub name where they are not at hand."""
    if loaded.base_model_path is None:
        return sha256_of(loaded.name)
    return weights_digest(loaded.base_model_path)


def models_of(run: Path) -> tuple[LoadedModel, LoadedModel]:
    """Base and rerouted model of a run.

    Raises:
        UserError: the folder is no run, or its model is not there yet.
    """
    if not is_run(run):
        raise UserError(
            f"{run} is not a run directory",
            "give the folder that train or quickstart wrote (attack: or name the base of a model that is no run)",
        )
    if not (run / "model" / "config.json").is_file():
        raise UserError(f"{run} has no merged model yet", f"finish it: rerouting train --config {run}/config.yaml "
                        f"--out {run}")  # fmt: skip
    rerouted = load(replace(load_config(RunConfig, run / "config.yaml").model, name=str(run / "model")))
    return base_of(run), replace(rerouted, adapter_path=run / "adapter")


def base_of(run: Path) -> LoadedModel:
    """The base model of a run alone.

    Raises:
        UserError: the folder is no run, or the base cannot be loaded.
    """
    if not is_run(run):
        raise UserError(f"{run} is not a run directory", "give the folder that train or quickstart wrote")
    config = load_config(RunConfig, run / "config.yaml")
    path = json.loads((run / "manifest.json").read_text())["base_model_path"]
    return load(replace(config.model, name=path if Path(path).is_dir() else config.model.name))
