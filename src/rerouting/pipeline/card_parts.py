"""What a model card says of a run: results, training setup, versions; parts that cannot be read are named."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerouting.core.findings import MODELS
from rerouting.core.rundir import RunDir
from rerouting.core.tables import markdown_table
from rerouting.evaluation.kept_table import COLUMNS as KEPT_COLUMNS
from rerouting.evaluation.kept_table import notes as kept_notes
from rerouting.evaluation.kept_table import table_rows
from rerouting.models.embedded import EMBEDDED
from rerouting.pipeline.run_table import columns, table
from rerouting.training.config import SURE_END, RunConfig

BROKEN_NOTE = (
    "*Broken*: gibberish, by a rule that compares with the base model's own answer; the base itself is therefore never "
    "broken, unless its answer is empty. *NLL*: nats a token of the base model's own answers, under each model; one "
    "with an NLL risen by over 1 is *lost*: the rerouted model would hardly write it any more (refusals too). "
    "Brackets: 95 % intervals (Wilson)."
)
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "rerouting")
Row = dict[str, Any]


@dataclass
class Found:
    """What there is of a run.

    Attributes:
        facts: its manifest.
        summary: base and rerouted model on the evaluation sets.
        attacks: summary of every matrix, by its folder's name.
        kept: what the circuit breakers cost.
        faults: files that cannot be read, and why.
    """

    facts: Row = field(default_factory=dict)
    summary: Row = field(default_factory=dict)
    attacks: dict[str, Row] = field(default_factory=dict)
    kept: Row = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def process(self) -> Row:
        """The environment that the run was finished in."""
        return dict((self.facts.get("processes") or [{}])[-1])


def found_in(run: RunDir) -> Found:
    """Read what there is."""
    found = Found()
    found.facts = _read(run.manifest, found)
    found.summary = _read(run.summary, found)
    found.kept = _read(run.path / "kept" / "summary.json", found)
    for file in sorted(run.path.glob("attacks*/summary.json")):
        if matrix := _read(file, found):
            found.attacks[file.parent.name] = matrix
    return found


def results(found: Found) -> list[str]:
    """Sections of the results: what the run compared, attacks, cost, and what cannot be read."""
    if found.summary.get("sets"):
        rows = "\n".join(markdown_table(columns(found.summary), table(found.summary)))
        parts = [f"Base and rerouted model, one answer to each prompt, greedy:\n\n{rows}\n\n{BROKEN_NOTE}"]
    else:
        parts = ["Base and rerouted model were not compared when it was trained."]
    parts += [_attacks(matrix) for matrix in found.attacks.values()]
    if not found.attacks:
        parts.append("### Attacks\n\nNot attacked yet.")
    parts.append(
        _kept(found.kept) if found.kept.get("measures") else "### What it costs\n\nNot measured yet."
    )
    return parts + [f"**Cannot be read:** {fault}" for fault in found.faults]


def setup(config: RunConfig, found: Found) -> str:
    """The training setup as a table."""
    optim, lora, model = config.training, config.lora, found.facts.get("model", {})
    layers = found.facts.get("target_layers", config.losses.target_layers)
    retain = optim.retain_batch_size or optim.batch_size
    weights = f", weights {model['sha256'][:12]}" if model.get("sha256") else ""
    stages = {name: one["seconds"] for name, one in found.facts.get("stages", {}).items()}
    dtype = str(model.get("dtype", config.model.dtype)).removeprefix("torch.")
    start = f"block {lora.first_block}" if lora.first_depth is None else f"{lora.first_depth:g} of the depth"
    rank = f"LoRA rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}"
    weaker = "" if lora.strength == 1 else f", kept at {lora.strength:g} of their strength"
    adapters = f"{rank}, in every linear layer from {start} to there{weaker}"
    parts = (config.losses.reroute, config.losses.retain, config.losses.schedule)
    mean = "; retain loss by its mean over sequences" if config.losses.retain_mean == "sequences" else ""
    steps = f"{optim.steps} of {optim.batch_size} harmful and {retain} retained sequences"
    rows = [
        ("base", f"{base_name(config)}{weights}, {dtype}"),
        ("rerouted layers", f"{', '.join(map(str, layers))} (layer i: output of block i − 1)"),
        ("adapters", adapters),
        ("reroute, retain, schedule", "; ".join(map(_component, parts)) + mean),
        *_ends(found),
        ("steps", f"{steps}, AdamW, rate {optim.learning_rate:g}"),
        ("seed", str(config.seed)),
        *(
            (f"data, {name.replace('_', ' ')}", _sources(found, name))
            for name in ("circuit_breaker", "retain")
        ),
        ("time", ", ".join(f"{name} {seconds:.0f} s" for name, seconds in stages.items()) or "not recorded"),
    ]
    return "\n".join(markdown_table(("what", "value"), rows))


def _ends(found: Found) -> list[tuple[str, str]]:
    """How surely the base ends the turn behind the place `stop`, where it was measured."""
    ends = found.facts.get("places", {}).get("stop", {}).get("ends", {})
    said = ", ".join(f"{chance:.2f} (layer {layer})" for layer, chance in ends.items())
    babbles = ": tripped answers may babble on" if any(chance < SURE_END for chance in ends.values()) else ""
    return [("probability that the base's turn ends half the way to `stop`", said + babbles)] if said else []


def base_name(config: RunConfig) -> str:
    """The base model's name on the hub, or its folder's or file's own name."""
    name = config.model.name
    if name in EMBEDDED:
        return EMBEDDED[name].hub
    return Path(name).name if Path(name).expanduser().exists() else name


def hardware(found: Found) -> str:
    """Where it was made."""
    own = found.process
    gpus = ", ".join(str(gpu["name"]) for gpu in own.get("gpus", []))
    cores = f"{own.get('cores', '?')} cores of {own.get('processor', 'a machine that was not recorded')}"
    return f"{gpus}, {cores}" if gpus else cores


def versions(found: Found) -> str:
    """Of what matters."""
    known = found.process.get("packages", {})
    shown = [f"{name} {known[name]}" for name in PACKAGES if name in known]
    return f"Python {found.process.get('python', '?')}, {', '.join(shown)}. All of them: `manifest.json`."


def _read(file: Path, found: Found) -> Row:
    if not file.is_file():
        return {}
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        found.faults.append(f"{file.parent.name}/{file.name} ({error})")
        return {}
    return dict(read) if isinstance(read, dict) else {}


def _attacks(matrix: Row) -> str:
    rows = []
    for name, parts in matrix.get("attacks", {}).items():
        if "skipped" in parts:
            rows.append((name, "", "", "", f"not run: {parts['skipped']}"))
            continue
        pair = [parts["all"][model] for model in MODELS]
        verified = ["" if not one.get("verified") else _share(one["verified"]) for one in pair]
        rows.append(
            (
                name,
                str(pair[1]["asr"]["n"]),
                *(_share(one["asr"]) for one in pair),
                " → ".join(filter(None, verified)),
            )
        )
    columns = ("attack", "n", "base, ASR %", "rerouted, ASR %", "after reading: base → rerouted")
    title = f"### Attacks, budget {matrix.get('budget', '?')}, judged by `{matrix.get('judge', '?')}`"
    return "\n".join(
        [
            title,
            "",
            *markdown_table(columns, rows),
            "",
            "ASR: attack success rate by that judge, with its 95 % interval.",
        ]
    )


def _kept(kept: Row) -> str:
    rows = markdown_table(KEPT_COLUMNS, table_rows(kept))
    under = [f"- {note}" for note in kept_notes(kept)]
    return "\n".join(["### What it costs", "", *rows, *([""] if under else []), *under])


def _share(rate: Row) -> str:
    if rate["rate"] is None:
        return "–"
    return f"{100 * rate['rate']:.1f} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def _component(one: Any) -> str:
    options = ", ".join(f"{name} {value}" for name, value in one.options.items())
    name = Path(one.name).name
    return f"{name} ({options})" if options else name


def _sources(found: Found, name: str) -> str:
    rows = [row for row in found.facts.get("data", {}).get("sources", {}).get(name, []) if "name" in row]
    shown = []
    for row in rows:
        kind = row["options"].get("kind") or Path(str(row["options"].get("path", ""))).name
        shown.append(f"{Path(row['name']).name} {kind}".strip() + f": {row.get('used', row['chats'])} chats")
    return "; ".join(shown) or "not recorded"
