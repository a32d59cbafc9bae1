"""What the harness logged of a task, one record a document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Document:
    """One document of a task, under one model.

    Attributes:
        id: its number in the task's data.
        prompt: hash of the whole prompt, examples and template included.
        right: the right answer, or its number among the choices.
        values: the harness's own figure for each metric, as `acc` or `exact_match,strict-match`; empty where a
            likelihood is no number.
        said: what the model wrote, or the log-likelihood of each choice in nats.
    """

    id: int
    prompt: str
    right: str
    values: dict[str, Any]
    said: list[Any]


@dataclass
class Answered:
    """A task under one model.

    Attributes:
        documents: in the order of the task's data.
        overall: the harness's aggregate of each metric.
        cut: prompts that were longer than the model's context, and lost their beginning.
    """

    documents: list[Document]
    overall: dict[str, float]
    cut: int = 0


def answered(found: dict[str, Any], name: str, cut: int) -> Answered:
    """Read the harness's results of the task of that name."""
    overall = {
        shown(*key.split(",", 1)): float(value)
        for key, value in found["results"][name].items()
        if "," in key and "_stderr" not in key and isinstance(value, (int, float))
    }
    return Answered(_documents(found["samples"][name]), overall, cut)


def shown(metric: str, filter_name: str) -> str:
    """A metric's name, with the filter that the answer went through where there is a choice."""
    return metric if filter_name == "none" else f"{metric},{filter_name}"


def _documents(samples: Sequence[dict[str, Any]]) -> list[Document]:
    """The harness logs a document once a filter; here it is one."""
    found: dict[int, Document] = {}
    for sample in samples:
        said = [_said(reply) for reply in sample["filtered_resps"]]
        document = found.setdefault(
            sample["doc_id"],
            Document(sample["doc_id"], sample["prompt_hash"], str(sample["target"]), {}, said),
        )
        if None not in said:
            document.values.update(
                {shown(name, sample["filter"]): sample[name] for name in sample["metrics"]}
            )
    return [found[number] for number in sorted(found)]


def _said(reply: Any) -> Any:
    """A text, or a log-likelihood, which is None if it is no number."""
    figure = reply[0] if isinstance(reply, (tuple, list)) else reply
    if isinstance(figure, float):
        return figure if math.isfinite(figure) else None
    return str(figure)
