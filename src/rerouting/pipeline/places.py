"""The places of a run on disk: measured by the main process, read by all, kept for a run that goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write
from rerouting.models.loading import LoadedModel
from rerouting.models.trunk import Trunk
from rerouting.training.config import SURE_END, RunConfig
from rerouting.training.loop import TrainingData
from rerouting.training.places import measure, wanted


def save_places(config: RunConfig, base: LoadedModel, data: TrainingData, file: Path) -> dict[str, Any]:
    """Measure what the rerouting loss asks for, and write it; nothing is written if it asks for nothing.

    Returns:
        What the manifest says of each place: examples, tokens, its length at each target layer, and of `stop` how
        surely the blocks above end the turn.

    Raises:
        UserError: the streams have nothing to measure a place on.
    """
    layers = config.losses.target_layers
    found = measure(
        wanted(config.losses),
        Trunk(base.model, max(layers), config.model.blocks),
        data,
        base.tokenizer,
        layers,
        pad_id=base.tokenizer.pad_token_id,
        size=config.training.micro_batch,
    )
    for layer, ends in zip(layers, found["stop"].ends if "stop" in found else (), strict=False):
        if ends < SURE_END:
            sys.stderr.write(
                f"half the way to the place stop at layer {layer} the turn ends with probability {ends:.2f}: "
                "tripped answers may babble on; a higher one of losses.target_depths may end them\n"
            )
    if found:
        atomic_write(file, to_bytes({name: place.state for name, place in found.items()}))
    return {
        name: {
            "examples": place.examples,
            "tokens": place.tokens,
            "norm": {str(layer): float(row.norm()) for layer, row in zip(layers, place.state, strict=True)},
        }
        | ({"ends": dict(zip(map(str, layers), place.ends, strict=True))} if place.ends else {})
        for name, place in found.items()
    }


def load_places(config: RunConfig, file: Path) -> dict[str, Tensor]:
    """The places that the rerouting loss asks for, (L, D) each.

    Raises:
        UserError: the file is missing or damaged.
    """
    names = wanted(config.losses)
    if not names:
        return {}
    try:
        found = from_bytes(file.read_bytes())
        return {name: found[name] for name in names}
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(
            f"{file} cannot be read ({error})", "remove it: the same command measures the places again"
        ) from error
