"""Two folders of one run, part by part: adapter, training log, answers, rates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl
from rerouting.core.findings import MODELS
from rerouting.core.rundir import RunDir
from rerouting.models.adapter_files import WEIGHTS

CLOCK = ("seconds", "tokens_per_second", "peak_memory_mib", "matrix_rate_share")
"""Columns of metrics.jsonl that depend on the machine's haste alone."""
Part = dict[str, Any]


def compared(first: RunDir, second: RunDir, evaluated: bool) -> dict[str, Part]:
    """Every part with `same` (None: one of the two is missing or damaged), a `note`, and its figures.

    Args:
        first: the run.
        second: the run that repeats it.
        evaluated: whether there are answers and rates to compare.
    """
    parts = {
        "adapter": _tried(_adapters, first.adapter / WEIGHTS, second.adapter / WEIGHTS),
        "metrics": _tried(_metrics, first.metrics, second.metrics),
    }
    if evaluated:
        parts["generations"] = _tried(_generations, first.generations, second.generations)
        parts["rates"] = _tried(_rates, first.summary, second.summary)
    return parts


def bit_equal(parts: Mapping[str, Part]) -> bool:
    """Whether every part could be compared and is the same."""
    return all(part["same"] is True for part in parts.values())


def _tried(compare: Callable[[Path, Path], Part], first: Path, second: Path) -> Part:
    for path in (first, second):
        if not path.is_file():
            return {"same": None, "note": f"{path} is missing"}
    try:
        return compare(first, second)
    except (UserError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        damaged = next((path for path in (first, second) if _unreadable(path)), first)
        return {"same": None, "note": f"{damaged} is damaged: {type(error).__name__}: {error}"}


def _unreadable(path: Path) -> bool:
    try:
        if path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".jsonl":
            read_jsonl(path)
        else:
            json.loads(path.read_text(encoding="utf-8"))
    except (UserError, SafetensorError, ValueError):
        return True
    return False


def _adapters(first: Path, second: Path) -> Part:
    one, two = load_file(first), load_file(second)
    lacking = sorted(one.keys() ^ two.keys())
    if lacking:
        return {"same": False, "note": f"{len(lacking)} tensors are in one alone, such as {lacking[0]}"}
    shapes = [name for name in one if one[name].shape != two[name].shape]
    if shapes:
        return {"same": False, "note": f"{len(shapes)} tensors of another shape, such as {shapes[0]}"}
    other = [
        name for name in one if one[name].dtype != two[name].dtype or not torch.equal(one[name], two[name])
    ]
    part: Part = {
        "tensors": len(one),
        "differing": len(other),
        "bytes_equal": first.read_bytes() == second.read_bytes(),
    }
    if not other:
        return part | {"same": True, "note": f"{len(one)} tensors, bit-equal"}
    largest, name = max(
        (float((one[name].double() - two[name].double()).abs().max()), name) for name in other
    )
    norm = sum(float(item.double().square().sum()) for item in one.values()) ** 0.5
    apart = sum(float((one[name].double() - two[name].double()).square().sum()) for name in other) ** 0.5
    part |= {
        "largest_difference": largest,
        "largest_in": name,
        "relative_difference": apart / norm if norm else None,
    }
    note = f"{len(other)} of {len(one)} tensors differ, by at most {largest:.3g} ({name})"
    return part | {"same": False, "note": note}


def _metrics(first: Path, second: Path) -> Part:
    one, two = ({row["step"]: dict(_numbers(row)) for row in read_jsonl(path)} for path in (first, second))
    lacking = sorted(one.keys() ^ two.keys())
    largest: dict[str, float] = {}
    differing = []
    for step in sorted(one.keys() & two.keys()):
        apart = {
            name: abs(one[step].get(name, float("inf")) - two[step].get(name, float("inf")))
            for name in one[step].keys() | two[step].keys()
            if one[step].get(name) != two[step].get(name)
        }
        if apart:
            differing.append(step)
        largest |= {name: max(value, largest.get(name, 0.0)) for name, value in apart.items()}
    part = {"steps": len(one), "differing_steps": differing, "steps_in_one_alone": lacking}
    part["largest_differences"] = {
        name: value if value < float("inf") else None for name, value in largest.items()
    }
    if lacking:
        return part | {"same": False, "note": f"steps in one log alone: {', '.join(map(str, lacking[:5]))}"}
    if differing:
        name = max(largest, key=lambda key: largest[key])
        note = f"from step {differing[0]} on, by at most {largest[name]:.3g} ({name})"
        return part | {"same": False, "note": note}
    return part | {"same": True, "note": f"{len(one)} logged steps, equal but for clock and memory"}


def _generations(first: Path, second: Path) -> Part:
    one, two = read_jsonl(first), read_jsonl(second)
    if [_asked(row) for row in one] != [_asked(row) for row in two]:
        return {"same": False, "note": f"other prompts: {len(one)} → {len(two)}"}
    pairs = list(zip(one, two, strict=True))
    other = {name: [a["id"] for a, b in pairs if a[name]["answer"] != b[name]["answer"]] for name in MODELS}
    labels = Counter(name for a, b in pairs for name in MODELS if a[name]["label"] != b[name]["label"])
    part = {"prompts": len(one), "other_answers": other, "other_labels": dict(labels)}
    if any(other.values()):
        counts = ", ".join(f"{len(ids)} of the {name} model's" for name, ids in other.items() if ids)
        return part | {"same": False, "note": f"other answers to {len(one)} prompts: {counts}"}
    if one != two:
        return part | {"same": False, "note": "equal answers with other labels or likelihoods"}
    return part | {"same": True, "note": f"{len(one)} prompts, both models' answers equal"}


def _rates(first: Path, second: Path) -> Part:
    one, two = (
        dict(_numbers(json.loads(path.read_text(encoding="utf-8"))["sets"])) for path in (first, second)
    )
    other = {
        name: [one.get(name), two.get(name)]
        for name in sorted({*one, *two})
        if one.get(name) != two.get(name)
    }
    part = {"figures": len(one), "differing": other}
    if other:
        shown = next((name for name in other if name.endswith(".rate")), next(iter(other)))
        note = f"{len(other)} of {len(one)} figures differ, such as {shown}: {other[shown][0]} → {other[shown][1]}"
        return part | {"same": False, "note": note}
    return part | {"same": True, "note": f"{len(one)} figures, equal"}


def _asked(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["set"], row["id"], row["messages"], row["prefill"]


def _numbers(row: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a row by its dotted name, but for those of the clock."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{above}{name}.")
        elif isinstance(value, (int, float)) and name not in CLOCK:
            yield f"{above}{name}", value
