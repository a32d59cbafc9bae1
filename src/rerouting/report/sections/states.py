"""How far states are moved, by layer and by token: of benign texts, and of what the analysis looked at."""

from __future__ import annotations

from collections.abc import Sequence

from rerouting.report.figures import kept_figures
from rerouting.report.node import DamagedError, Node
from rerouting.report.parts import Group, Limits, Note, Plot, Section
from rerouting.report.plots import by_layer, curves
from rerouting.report.reading import Run, sound

FILE, WRITER = "analysis/analysis.json", "rerouting analyse"
LEAD = "Cosine 1 means that a state is what it was in the base model; 0 that it points elsewhere."
PANELS = (("cosine", "Cosine to the base by layer"), ("norm_ratio", "Norm beside the base's by layer"))
Lines = dict[str, Sequence[float | None]]


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One group a run."""
    return Section("states", "Hidden states", LEAD, [_group(run, limits) for run in runs])


def _group(run: Run, limits: Limits) -> Group:
    group = Group(run.name)
    try:
        analysis = run.json(FILE, WRITER)
        _add(group, analysis, limits)
    except DamagedError as damage:
        group.damaged(damage)
    group.parts += _benign(run, limits)
    return group


def _add(group: Group, analysis: Node, limits: Limits) -> None:
    """Plots of every part that is there; damage is said in its place."""
    for key, title in PANELS:
        lines, problems = _kinds(analysis, key)
        if lines:
            layers = [one.number() for one in analysis["layers"].items()]
            group.parts.append(curves(title, ("layer", layers), lines, key.replace("_", " "), limits.points))
        group.damaged(*problems)
    given = analysis.get("by_token")
    if given is not None:
        lines, problems = _by_token(given)
        longest = max((len(values) for values in lines.values()), default=0)
        if longest:
            padded = {name: [*values, *[None] * (longest - len(values))] for name, values in lines.items()}
            across = ("token of the answer", list(range(1, longest + 1)))
            group.parts.append(
                curves("Cosine to the base by token of the answer", across, padded, "cosine", limits.points)
            )
        group.damaged(*problems)


def _kinds(analysis: Node, key: str) -> tuple[Lines, list[str]]:
    """One line a kind of text and part of it (prompt, response)."""
    kinds = analysis.get("kinds")
    lines: Lines = {}
    problems: list[str] = []
    for kind, parts in kinds.entries() if kinds else ():
        try:
            for part, values in parts.entries():
                found = values.get(key)
                if found is not None:
                    layers = [one.number() for one in analysis["layers"].items()]
                    lines[f"{kind}, {part}"] = by_layer(found, layers)
        except DamagedError as damage:
            problems.append(str(damage))
    return lines, problems


def _by_token(node: Node) -> tuple[Lines, list[str]]:
    def line(entry: tuple[str, Node]) -> tuple[str, list[float | None]]:
        kind, item = entry
        return f"{kind}, layer {item['layer'].count()}", item["cosine"].numbers()

    found, problems = sound(node.entries(), line)
    return dict(found), problems


def _benign(run: Run, limits: Limits) -> list[Plot | Note]:
    """Drift by layer on benign texts, as `rerouting evaluate` measured it; its damage is named under Results."""
    try:
        figures, _ = kept_figures(run)
    except DamagedError:
        return []
    found: dict[str, dict[int, float]] = {}
    for figure in figures:
        layer = figure.part.removeprefix("layer ")
        if figure.source == "intrinsic" and layer.isdecimal() and figure.rerouted.value is not None:
            found.setdefault(figure.name, {})[int(layer)] = figure.rerouted.value
    layers = sorted({layer for values in found.values() for layer in values})
    return [
        curves(
            f"Benign texts: {name} by layer",
            ("layer", layers),
            {name: [values.get(layer) for layer in layers]},
            "share of the base's norm" if name == "drift" else name,
            limits.points,
        )
        for name, values in found.items()
    ]
