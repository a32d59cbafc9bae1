"""A probe on the disk: tensors in safetensors, the rest in JSON; nothing that could run code."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rerouting.core.errors import UserError
from rerouting.core.files import atomic_folder
from rerouting.probes.head import Head

WEIGHTS, CARD = "probe.safetensors", "probe.json"


@dataclass(frozen=True)
class Probe:
    """A head with where to read, and from which score on it is an alarm.

    Attributes:
        head: its tensors.
        kind: a file in probes/kinds/ ("linear", "mlp", "reading"), or path/to/mine.py:Name.
        layer: hidden layer that it reads, as in `models.layers`.
        skip: tokens at the start of a response that it passes over.
        threshold: a score above it is an alarm.
        blocks: dotted path of the model's block list, where it cannot be found alone.
        about: how it was made and how well it did, for the card.
    """

    head: Head
    kind: str
    layer: int
    skip: int
    threshold: float
    blocks: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def at(self, threshold: float) -> Probe:
        """The same with another threshold."""
        return replace(self, threshold=threshold)

    def save(self, folder: Path) -> None:
        """Write the folder anew, whole or not at all."""
        card = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "head"}
        with atomic_folder(folder) as work:
            save_file({name: item.contiguous() for name, item in self.head.tensors.items()}, work / WEIGHTS)
            (work / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def load_probe(folder: Path) -> Probe:
    """A saved probe.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return Probe(Head(load_file(folder / WEIGHTS)), **card)
    except FileNotFoundError:
        raise UserError(f"{folder} has no probe", "train one: rerouting probe train RUN") from None
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(
            f"the probe in {folder} is damaged: {error}", "train it again: rerouting probe train RUN"
        ) from error
