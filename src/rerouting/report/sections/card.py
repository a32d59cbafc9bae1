"""The reproducibility card: what a reader needs to judge and repeat the run, each with its value.

After the items that reproducibility checklists for papers ask for (Pineau et al. 2021, "Improving Reproducibility in
Machine Learning Research", and its followers).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rerouting import __version__
from rerouting.report.figures import TRAIN
from rerouting.report.node import DamagedError, Node
from rerouting.report.parts import Cell, Code, Group, Limits, Section, Table, number, row_of
from rerouting.report.reading import Run, sound
from rerouting.report.sections.cost import hardware

LEAD = "What it takes to judge and repeat the run; values are those of manifest.json and config.yaml."
MANIFEST = "manifest.json"
LONGEST_CONFIG = 30_000
TYPE = (
    "Experimental: circuit breakers are trained into a language model by Representation Rerouting (Zou et al. 2024, "
    "arXiv 2406.04313), and base and rerouted model are measured on the same requests."
)
OUTLINE = """for step t = 1 … {steps}:
    x_s ← {batch} chats of the circuit-breaker set        x_r ← {retain_batch} chats of the retain set
    loss ← c_s(t) · mean over (layer in {layers}, token) of  {reroute}(rep_cb(x_s), rep_base(x_s))
         + c_r(t) · mean over (layer in {retain_layers}, token) of  {retain}(rep_cb(x_r), rep_base(x_r))
    AdamW step on the LoRA adapters (rank {rank}), learning rate {rate}
c_s, c_r: schedule {schedule}; rep_base: the same model with its adapters off"""
SETTINGS = {
    "steps": ("training", "steps"),
    "batch": ("training", "batch_size"),
    "retain_batch": ("training", "retain_batch_size"),
    "rate": ("training", "learning_rate"),
    "rank": ("lora", "rank"),
    "reroute": ("losses", "reroute", "name"),
    "retain": ("losses", "retain", "name"),
    "retain_layers": ("losses", "retain_layers"),
    "schedule": ("losses", "schedule", "name"),
}
Lines = list[tuple[str, str]]


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One group a run."""
    return Section("card", "Reproducibility card", LEAD, [_group(run) for run in runs])


def _group(run: Run) -> Group:
    group = Group(run.name)
    group.facts(("research type", TYPE))
    group.parts.append(Code(_outline(run), title="Conceptual outline"))
    for lines in (_code, _model, _seeds, _hardware):
        try:
            group.facts(*lines(run.json(MANIFEST, TRAIN)))
        except DamagedError as damage:
            group.damaged(damage)
    _add_data(group, run)
    _add_software(group, run)
    _add_setup(group, run)
    group.parts.append(Code(_command(run), title="Repeat the run"))
    return group


def _outline(run: Run) -> str:
    """The method in outline, with the run's own names and figures; a question mark for what is not there."""
    values = {name: _setting(run, keys) for name, keys in SETTINGS.items()}
    try:
        values["layers"] = run.json(MANIFEST, TRAIN)["target_layers"].plainly()
    except DamagedError:
        values["layers"] = "?"
    return OUTLINE.format(**values)


def _setting(run: Run, keys: Sequence[str]) -> str:
    try:
        node = run.config()
        for key in keys:
            node = node[key]
        return node.plainly()
    except DamagedError:
        return "?"


def _code(manifest: Node) -> Lines:
    """Package and revision of every process."""
    lines: Lines = []
    for process in manifest["processes"].items():
        packages, source = process.get("packages"), process.get("source")
        version = packages.maybe_text("rerouting") if packages else ""
        text = f"rerouting {version or '(version not recorded)'}, Apache-2.0"
        if source:
            changed = source.get("changed")
            text += f", git revision {source['revision'].text()}"
            text += " with changes that are not in it" if changed and changed.flag() else ""
        else:
            text += ", no git revision recorded"
        if ("code", text) not in lines:
            lines.append(("code", text))
    return lines


def _model(manifest: Node) -> Lines:
    model = manifest["model"]
    text = f"{model['name'].text()}, {model.maybe_text('dtype') or 'precision not recorded'}"
    return [("base model", text), ("SHA-256 of its weights", model["sha256"].text())]


def _seeds(manifest: Node) -> Lines:
    return [("seed", str(manifest["seed"].count()))]


def _hardware(manifest: Node) -> Lines:
    return [(f"hardware: {name}", value) for name, value in hardware(manifest["processes"].items()[-1:])]


def _add_data(group: Group, run: Run) -> None:
    """Sources of every stream with counts, options and licence, and the streams' hashes."""
    try:
        data = run.json(MANIFEST, TRAIN)["data"]
        found, problems = sound(data["sources"].entries(), lambda entry: _streams(*entry))
    except DamagedError as damage:
        group.damaged(damage)
        return
    rows = [row for rows in found for row in rows]
    columns = ("split", "source", "options", "chats", "used", "licence")
    group.parts.append(Table(columns, rows, title="Data and splits"))
    group.damaged(*problems)
    try:
        hashes, problems = sound(data["sha256"].entries(), lambda entry: (entry[0], entry[1].text()))
        group.facts(*((f"SHA-256 of {name}.jsonl", value) for name, value in hashes))
        group.damaged(*problems)
    except DamagedError as damage:
        group.damaged(damage)
    try:
        sets, problems = sound(run.config()["evaluation"]["sets"].items(), _evaluated)
        group.facts(*sets)
        group.damaged(*problems)
    except DamagedError as damage:
        group.damaged(damage)


def _streams(split: str, sources: Node) -> list[list[Cell]]:
    rows = []
    for source in sources.items():
        if "name" not in source.mapping():
            continue
        name = source["name"].text()
        counts = [source.get(key) for key in ("chats", "used")]
        rows.append(
            [
                *row_of(split.replace("_", " "), name, ", ".join(_options(source))),
                *(number("" if count is None else str(count.count())) for count in counts),
                Cell(_licence(name, source)),
            ]
        )
    return rows


def _licence(name: str, source: Node) -> str:
    given = source.maybe_text("licence") or source.maybe_text("license")
    return given or ("Apache-2.0, ships with rerouting" if name == "bundled" else "not recorded by the run")


def _evaluated(node: Node) -> tuple[str, str]:
    """One evaluation set: its source with options, its attack, how many requests at most."""
    source = node["source"]
    words = [source["name"].text(), *_options(source)]
    for key in ("attack", "limit"):
        given = node.get(key)
        words += [] if given is None else [f"{key} {given.plainly()}"]
    return f"evaluated on: {node['name'].text()}", ", ".join(words)


def _options(source: Node) -> list[str]:
    options = source.get("options")
    return [f"{name} {value.plainly()}" for name, value in options.entries()] if options else []


def _add_software(group: Group, run: Run) -> None:
    try:
        last = run.json(MANIFEST, TRAIN)["processes"].items()[-1:]
        for process in last:
            packages = process.get("packages")
            names = [(name, one.plainly()) for name, one in packages.entries()] if packages else []
            versions = [("Python", process.maybe_text("python") or "not recorded"), *names]
            rows = [row_of(name, version) for name, version in versions]
            group.parts.append(Table(("package", "version"), rows, "Exact software versions"))
    except DamagedError as damage:
        group.damaged(damage)


def _add_setup(group: Group, run: Run) -> None:
    try:
        text = run.config_text()
        left = len(text) - LONGEST_CONFIG
        shown = text if left <= 0 else f"{text[:LONGEST_CONFIG]}\n… ({left} more characters in config.yaml)"
        group.parts.append(Code(shown, "Full setup (config.yaml)"))
    except DamagedError as damage:
        group.damaged(damage)


def _command(run: Run) -> str:
    return f"rerouting reproduce {shlex.quote(str(run.path))}"


def made_by() -> str:
    """What wrote the page."""
    return f"rerouting {__version__}"
