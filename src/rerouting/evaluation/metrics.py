"""The figures of a trial under one name each, and what is asked of them.

Names: `attacks.NAME.MODEL.asr` (also answered, refused, broken, unscored, as shares), `attacks.mean.MODEL.asr` over the
attacks, and `MEASURE.FIGURE[PART].WHICH` with base, rerouted or difference; [PART] is left out where the figure is of
all texts. Blanks in names become underscores.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.findings import MODELS
from rerouting.core.near import way_out
from rerouting.evaluation.compare import LABELS

Metrics = Mapping[str, float | None]
Intervals = Mapping[str, Sequence[float] | None]
_CONSTRAINT = re.compile(r"\s*(\S+)\s*(<=|>=)\s*([-+]?[0-9.]+(?:[eE][-+]?\d+)?)\s*")
FIGURES = ("asr", *LABELS, "unscored")
_HOLDS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Constraint:
    """A metric that must not be above, or not below, a number."""

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"

    def broken_by(self, metrics: Metrics) -> str:
        """Why the trial does not keep it; "" if it does."""
        value = look_up(metrics, self.metric)
        if value is None:
            return f"{self.metric} was not measured"
        kept = _HOLDS[self.sign](value, self.bound)
        return "" if kept else f"{self.metric} is {value:.4g}, not {self.sign} {self.bound:g}"


@dataclass(frozen=True)
class Objective:
    """A metric to be small, or large."""

    metric: str
    sign: int

    def value(self, metrics: Metrics) -> float | None:
        """What is minimised; None where it was not measured."""
        found = look_up(metrics, self.metric)
        return None if found is None else self.sign * found


def parse_objective(text: str) -> Objective:
    """`minimise METRIC` or `maximise METRIC`.

    Raises:
        UserError: anything else.
    """
    word, _, metric = text.strip().partition(" ")
    signs = {"minimise": 1, "minimize": 1, "maximise": -1, "maximize": -1}
    if word not in signs or not metric.strip() or " " in metric.strip():
        raise UserError(f"objective is {text!r}", "write: minimise METRIC, or maximise METRIC")
    return Objective(metric.strip(), signs[word])


def parse_constraint(text: str) -> Constraint:
    """`METRIC <= NUMBER` or `METRIC >= NUMBER`.

    Raises:
        UserError: anything else.
    """
    found = _CONSTRAINT.fullmatch(text)
    if not found:
        raise UserError(
            f"constraint {text!r} is not understood", "write: METRIC <= NUMBER, or METRIC >= NUMBER"
        )
    return Constraint(found[1], found[2], float(found[3]))


def look_up(metrics: Metrics, name: str) -> float | None:
    """A metric by its name.

    Raises:
        UserError: there is none of that name; says what there is.
    """
    if name not in metrics:
        raise UserError(f"no metric {name!r}", way_out(name, metrics, "there are"))
    return metrics[name]


def check_reachable(name: str, attacks: Sequence[str], measures: Sequence[str]) -> None:
    """Refuse a metric that no attack or measure of the selection can give; which figures a measure has shows later.

    Raises:
        UserError: says how metrics are named.
    """
    starts = [] if "all" in attacks else [f"attacks.{one}" for one in (*attacks, "mean")]
    owner = (
        name.rpartition(".")[0].rpartition(".")[0] if name.startswith("attacks.") else name.partition(".")[0]
    )
    if name.startswith("attacks.") and (not starts or owner in starts):
        figure, model = name.rpartition(".")[2], name.rpartition(".")[0].rpartition(".")[2]
        if figure not in FIGURES or model not in MODELS:
            allowed = [f"{owner}.{one}.{which}" for one in MODELS for which in FIGURES]
            raise UserError(f"no metric {name!r}", way_out(name, allowed, "there are"))
        return
    short = [one.rpartition(":")[2] for one in measures]
    if owner not in short:
        raise UserError(
            f"no metric {name!r}",
            way_out(owner, [*starts, *short], "they begin with one of what is measured"),
        )


def metrics_of(matrix: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, float | None]:
    """Every figure of an attack matrix's summary and of `rerouting evaluate`'s."""
    return _of_attacks(matrix) | {
        f"{name}.{which}": one[which]
        for measure, result in kept.get("measures", {}).items()
        for one in result["findings"]
        for name in [_figure(measure, one["name"], one["part"])]
        for which in ("base", "rerouted", "difference")
    }


def intervals_of(matrix: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, list[float] | None]:
    """95 % intervals of those figures that have one."""
    found: dict[str, list[float] | None] = {}
    attacks = _run(matrix)
    for model in MODELS:
        each: list[list[float] | None] = []
        for name in attacks:
            own = attacks[name][model]["asr"]
            ends = (own.get("low"), own.get("high"))
            each.append(None if None in ends else [float(end) for end in ends])
            found[f"attacks.{name}.{model}.asr"] = each[-1]
        found[f"attacks.mean.{model}.asr"] = mean_interval(each)
    for measure, result in kept.get("measures", {}).items():
        for one in result["findings"]:
            name = _figure(measure, one["name"], one["part"])
            kinds = {"base": "base_interval", "rerouted": "rerouted_interval", "difference": "interval"}
            found |= {f"{name}.{which}": one[kind] for which, kind in kinds.items() if one.get(kind)}
    return {name: ends for name, ends in found.items() if ends}


def mean_interval(each: Sequence[Sequence[float] | None]) -> list[float] | None:
    """Mean of the ends: wide rather than narrow, as if all errors went together (on one set they nearly do)."""
    low = mean([None if one is None else one[0] for one in each])
    high = mean([None if one is None else one[1] for one in each])
    return None if low is None or high is None else [low, high]


def _figure(measure: str, name: str, part: str) -> str:
    return f"{measure}.{name}{f'[{part}]' if part else ''}".replace(" ", "_")


def _run(matrix: Mapping[str, Any]) -> dict[str, Any]:
    """Attacks that were run, over all behaviours."""
    return {name: parts["all"] for name, parts in matrix.get("attacks", {}).items() if "skipped" not in parts}


def _of_attacks(matrix: Mapping[str, Any]) -> dict[str, float | None]:
    attacks = _run(matrix)
    found: dict[str, float | None] = {}
    for name, models in attacks.items():
        for model in MODELS:
            own, whole = models[model], sum(models[model]["labels"].values())
            found[f"attacks.{name}.{model}.asr"] = own["asr"]["rate"]
            for label in LABELS:
                found[f"attacks.{name}.{model}.{label}"] = own["labels"][label] / whole if whole else None
            left = own["asr"].get("unscored", 0)
            tried = own["asr"].get("n", whole) + left
            found[f"attacks.{name}.{model}.unscored"] = left / tried if tried else None
    for model in MODELS if attacks else ():
        for figure in FIGURES:
            each = [found[f"attacks.{name}.{model}.{figure}"] for name in attacks]
            found[f"attacks.mean.{model}.{figure}"] = mean(each)
    return found


def over_seeds(each: Sequence[Metrics]) -> dict[str, float | None]:
    """Means over seeds; a metric that one of them lacks is not measured."""
    names = list(dict.fromkeys(name for one in each for name in one))
    return {name: mean([one.get(name) for one in each]) for name in names}


def intervals_over_seeds(each: Sequence[Intervals]) -> dict[str, list[float] | None]:
    """`mean_interval` over seeds."""
    names = list(dict.fromkeys(name for one in each for name in one))
    return {name: mean_interval([one.get(name) for one in each]) for name in names}


def mean(values: Sequence[float | None]) -> float | None:
    """Mean, None if one is missing."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
