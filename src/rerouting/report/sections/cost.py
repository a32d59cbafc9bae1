"""What the run took: seconds, memory and tokens a second, and on what."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rerouting.report.figures import TRAIN
from rerouting.report.node import DamagedError, Node
from rerouting.report.parts import Cell, Group, Limits, Section, Table, number, without_empty
from rerouting.report.reading import Run, sound
from rerouting.report.sections.attacks import read_matrix

LEAD = "Wall time and peak memory of each stage; stages that went on in a later process add up."


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One group a run."""
    return Section("cost", "Cost", LEAD, [_group(run) for run in runs])


def _group(run: Run) -> Group:
    group = Group(run.name)
    columns = ("stage", "seconds", "peak memory, MiB", "peak GPU memory, MiB")
    try:
        manifest = run.json("manifest.json", TRAIN)
        stages, problems = sound(manifest["stages"].entries(), lambda entry: _stage(*entry))
        group.parts.append(without_empty(columns, stages))
        group.damaged(*problems)
        group.facts(*hardware(manifest["processes"].items()[-1:]))
    except DamagedError as damage:
        group.damaged(damage)
    try:
        group.facts(*_rates(run.rows("metrics.jsonl", TRAIN)[0]))
    except DamagedError as damage:
        group.damaged(damage)
    for folder in run.matrices():
        group.parts += _attacks(run, folder)
    return group


def _attacks(run: Run, folder: str) -> list[Table]:
    """What each attack took; damage is named under Attacks."""
    try:
        rows = [row for row in read_matrix(run, folder).rows if row.part == "all"]
        cells, _ = sound(rows, lambda row: _attack(row.attack, row.model, row.node))
    except DamagedError:
        return []
    columns = ("attack", "model", "attempts", "tokens through the model", "seconds")
    return [Table(columns, cells, f"Cost of the attacks ({folder})")]


def _attack(name: str, model: str, node: Node) -> list[Cell]:
    values = [node.maybe_number(key) for key in ("attempts", "forward_tokens", "seconds")]
    figures = [number("" if value is None else f"{value:,.0f}") for value in values]
    return [Cell(name if model == "base" else ""), Cell(model, look=model), *figures]


def _stage(name: str, stage: Node) -> list[Cell]:
    values = [stage.maybe_number(key) for key in ("seconds", "peak_memory_mib", "peak_gpu_mib")]
    return [Cell(name), *(number("" if value is None else f"{value:,.1f}") for value in values)]


def hardware(processes: Sequence[Node]) -> list[tuple[str, str]]:
    """Processor, memory, GPUs and system of one process.

    Raises:
        DamagedError: they are not as a manifest has them.
    """
    facts = []
    for process in processes:
        cores = process.get("cores")
        memory = process.maybe_number("memory_gib")
        facts.append(("processor", process.maybe_text("processor") or "not recorded"))
        facts.append(("cores", "not recorded" if cores is None else str(cores.count())))
        facts.append(("memory", "not recorded" if memory is None else f"{memory:g} GiB"))
        gpus = process.get("gpus")
        names = [_gpu(one) for one in gpus.items()] if gpus else []
        facts.append(("GPUs", ", ".join(names) or "none"))
        facts.append(("system", process.maybe_text("system") or "not recorded"))
    return facts


def _gpu(node: Node) -> str:
    memory, driver = node.maybe_number("memory_gib"), node.maybe_text("driver")
    parts = [node["name"].text(), "" if memory is None else f"{memory:g} GiB"]
    return ", ".join(part for part in [*parts, f"driver {driver}" if driver else ""] if part)


def _rates(rows: Sequence[Node]) -> list[tuple[str, str]]:
    """Figures of the logged steps; the middle one is a step's own. DamagedError rows are named under Training."""
    facts = []
    for key, name in (
        ("tokens_per_second", "training, tokens a second"),
        ("seconds", "training, seconds a step"),
        ("padding", "training, share of padding"),
        ("common", "training, share of tokens that ran with another sequence's"),
    ):
        values, _ = sound(rows, lambda row, key=key: row.maybe_number(key))  # type: ignore[misc]
        known = [value for value in values if value is not None]
        if known:
            low, middle, high = min(known), statistics.median_low(known), max(known)
            text = f"median {middle:,.4g}, from {low:,.4g} to {high:,.4g}, over {len(known)} logged steps"
            facts.append((name, text))
    return facts
