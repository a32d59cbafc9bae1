"""Adapters on disk, in PEFT's own format: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import peft
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from rerouting.core.errors import UserError
from rerouting.models.folders import whole_folder
from rerouting.models.layers import unwrapped

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


def save_adapter(
    model: peft.PeftModel, folder: Path, base_model: str | Path | None = None, strength: float = 1.0
) -> None:
    """Write the adapter so that `PeftModel.from_pretrained` reads it; whole or not at all.

    Args:
        model: model with adapters.
        folder: where to; an earlier adapter there is replaced.
        base_model: name or folder of the base model, for `base_model_name_or_path`; None keeps what is known.
        strength: share of the adapter's effect that is written; the model itself stays as it is.

    Raises:
        UserError: the folder holds something else, or the disk is full.
    """
    config = model.peft_config[model.active_adapter]
    if base_model is not None:
        config.base_model_name_or_path = str(base_model)
    state = get_peft_model_state_dict(model, adapter_name=model.active_adapter, save_embedding_layers=False)
    tensors = {name: item.detach().cpu().contiguous() for name, item in state.items()}
    own = config.inference_mode, config.lora_alpha
    config.inference_mode, config.lora_alpha = True, config.lora_alpha * strength
    try:
        with whole_folder(Path(folder), CONFIG) as work:
            save_file(tensors, work / WEIGHTS, metadata={"format": "pt"})
            config.save_pretrained(work)
    finally:
        config.inference_mode, config.lora_alpha = own


def load_adapter(model: nn.Module, folder: Path, *, trainable: bool = False) -> peft.PeftModel:
    """Put a saved adapter on a base model.

    Args:
        model: the base model, without adapters; changed in place.
        folder: what `save_adapter` or PEFT wrote.
        trainable: whether the adapter is to be trained further.

    Returns:
        The model with the adapter, its weights in float32.

    Raises:
        UserError: no adapter there, half-written, of another kind, for another model, or with NaN weights.
    """
    folder = Path(folder)
    config = _read_config(folder)
    shapes = _read_shapes(folder)
    _check_fits(unwrapped(model), shapes, folder, config.get("base_model_name_or_path"))
    with unharmed(model):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                adapted = peft.PeftModel.from_pretrained(model, folder, is_trainable=trainable)
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"the adapter in {folder} cannot be put on this model: {reason}", _MATCH
            ) from error
        expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        missing = [name for name in expected if name not in shapes and ".experts." not in name]
        if missing:
            raise UserError(f"{folder / WEIGHTS} lacks {len(missing)} tensors, such as {missing[0]}", _AGAIN)
        for name, item in expected.items():
            if not bool(item.isfinite().all()):
                raise UserError(f"{name} in {folder / WEIGHTS} holds NaN or infinite values", _AGAIN)
    return adapted


def check_strength(strength: float) -> None:
    """Refuse a strength that is no positive number.

    Raises:
        UserError: says so.
    """
    if not 0 < strength < inf:
        raise UserError(
            f"lora.strength is {strength}", "give a share above 0: 1 keeps what was trained, 0.9 less"
        )


@contextmanager
def unharmed(model: nn.Module) -> Iterator[None]:
    """Put adapters on a model; if an error ends the block, they are taken off and the model is as before."""
    needed = [(item, item.requires_grad) for item in model.parameters()]
    training = model.training
    try:
        yield
    except BaseException:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, BaseTunerLayer):
                    setattr(parent, name, child.get_base_layer())
        if hasattr(model, "peft_config"):
            del model.peft_config
        for item, gradient in needed:
            item.requires_grad_(gradient)
        model.train(training)
        raise


_MATCH = "load the model that the adapter was trained on"
_AGAIN = "copy or train the adapter again"


def base_of(folder: Path) -> str:
    """The base model that an adapter names.

    Raises:
        UserError: no adapter there, or it names none.
    """
    name = _read_config(Path(folder)).get("base_model_name_or_path")
    if not name:
        raise UserError(f"adapter {folder} does not name its base model", "give the base checkpoint's folder")
    return str(name)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"there is no adapter in {folder} ({CONFIG} cannot be read)", "check the path"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}", _AGAIN) from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise UserError(f"{path} describes an adapter of type {kind}, not LORA", "give a LoRA adapter")
    return dict(config)


def _read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"there is no {WEIGHTS} in {folder}", "only safetensors adapters are read, never pickles"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}", _AGAIN) from error


def _check_fits(model: nn.Module, shapes: dict[str, tuple[int, ...]], folder: Path, base: Any) -> None:
    """Compare the adapter's matrices with the layers they belong to, before the model is touched."""
    made_for = f" (it was made for {base})" if base else ""
    modules = dict(model.named_modules())
    for key, shape in shapes.items():
        name, _, matrix = key.removeprefix(_PREFIX).rpartition(".lora_")
        if matrix not in {"A.weight", "B.weight"} or ".experts" in name:
            continue  # PEFT itself checks the stacked experts, and converts their older names
        if name not in modules:
            raise UserError(
                f"the adapter in {folder} adapts {name}, which this model lacks{made_for}", _MATCH
            )
        size = _size(modules[name], matrix)
        own = shape[1] if matrix == "A.weight" else shape[0]
        if size is not None and size != own:
            raise UserError(
                f"the adapter in {folder} has width {own} at {name}, but this model has {size}{made_for}",
                _MATCH,
            )


def _size(module: nn.Module, matrix: str) -> int | None:
    """Input width of a linear layer for A, output width for B."""
    if isinstance(module, nn.Linear):
        return module.in_features if matrix == "A.weight" else module.out_features
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0] if matrix == "A.weight" else module.weight.shape[1])
    return None
