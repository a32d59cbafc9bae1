"""Benchmarks of the lm-evaluation-harness on both models, paired by document (extra `capability`).

Default: the six tasks of the Open LLM Leaderboard v1 and their unweighted mean, as the paper's Tables 1 and 5
(arXiv 2406.04313; "Open LLM 68.8" is the mean of six). Deviations: the chat template is applied to chat models, which
the leaderboard did not do, and the paper does not say; GSM8K is scored by the harness, the paper's was not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import huggingface_hub

from rerouting.core.contracts import Aids, Measured
from rerouting.core.errors import UserError
from rerouting.core.findings import Finding
from rerouting.core.near import way_out
from rerouting.measures import _harness, _short_facts
from rerouting.measures._documents import Answered, Document
from rerouting.measures._harness import Asking
from rerouting.measures._mean_of_tasks import mean_of_tasks
from rerouting.models.loading import hub_answers
from rerouting.targets.target import Target


@dataclass(frozen=True)
class HarnessTask:
    """How one task is asked and scored."""

    shots: int | None = None
    """Worked examples before each question; null: as the task's own file says."""
    metric: str = ""
    """As the harness names it, `acc_norm`, or with a filter, `exact_match,strict-match`; empty: all that the task
    has. The first one enters the mean over tasks."""


OPEN_LLM = {
    "arc_challenge": HarnessTask(25, "acc_norm"),
    "hellaswag": HarnessTask(10, "acc_norm"),
    "truthfulqa_mc2": HarnessTask(0, "acc"),
    "mmlu": HarnessTask(5, "acc"),
    "winogrande": HarnessTask(5, "acc"),
    "gsm8k": HarnessTask(5, "exact_match"),
}


@dataclass(frozen=True)
class LmEval:
    """A task's documents are put to one model, then to the other, with the same examples in the same order."""

    tasks: dict[str, HarnessTask] = field(default_factory=dict)
    """Names of tasks or groups, of the harness, of include_path, or the bundled short_facts, each with its options:
    {arc_challenge: {shots: 25, metric: acc_norm}}. Empty: the Open LLM Leaderboard's six where the hub answers, else
    short_facts (60 questions)."""
    include_path: str = ""
    """Folder with task files (.yaml) of your own; data files in them are looked for from there."""
    limit: int | None = None
    """Most documents of a task, the first ones (MMLU is 57 tasks); null for all."""
    batch: int = 8
    """Prompts at once; halves when memory runs out."""
    chat_template: bool = True
    """Apply the tokenizer's chat template, with worked examples as earlier turns, where it has one."""
    without_template: bool = False
    """Allows `chat_template: false` on a chat model, which the Open LLM Leaderboard v1 did: it then measures a model
    that nobody talks to."""

    def __post_init__(self) -> None:
        _harness.require_harness()
        if self.batch < 1 or (self.limit is not None and self.limit < 1):
            raise UserError(f"lm_eval: batch {self.batch}, limit {self.limit}", "give positive numbers")

    def measure(self, base: Target, rerouted: Target, aids: Aids) -> Measured:
        """One finding a task and metric, the mean over tasks, and one row a document.

        Raises:
            UserError: an unknown task, data that cannot be had, no chat template on a chat model, or the harness
                failed.
        """
        asking = Asking(aids.seed, self.limit, self.batch, self._templated(base, rerouted))
        wanted = self.tasks or ({_short_facts.NAME: HarnessTask()} if _offline() else OPEN_LLM)
        notes = [_about_template(asking.template, base), *_about_choice(self, wanted)]
        tasks = self._prepared(wanted, aids)
        findings, rows, firsts = [], [], []
        for task in tasks:
            metrics = _chosen(task, wanted[task.name].metric)
            pairs: list[tuple[Document, Document]] = []
            for number, leaf in enumerate(task.leaves, 1):
                aids.progress(f"{_where(task, leaf, number)}, both models")
                one, two = (_harness.answer(leaf, target, asking) for target in (base, rerouted))
                pairs += _paired(one, two)
                rows += [_row(task.name, leaf.task_name, *pair) for pair in _paired(one, two)]
                notes += _about_cuts(leaf.task_name, one)
            found = [_finding(task, metric, pairs, one, two) for metric in metrics]
            findings += found
            firsts.append(found[0])
        return Measured([*findings, *mean_of_tasks(firsts)], rows, notes)

    def _templated(self, base: Target, rerouted: Target) -> bool:
        """Whether prompts go through the chat template."""
        one, two = (getattr(target.tokenizer, "chat_template", None) for target in (base, rerouted))
        if one != two:
            raise UserError(
                "lm_eval: the two models' tokenizers have different chat templates",
                "give both the same, or they are not asked the same questions",
            )
        if one and not self.chat_template and not self.without_template:
            raise UserError(
                f"lm_eval: chat_template is false, and {base.loaded.name} is a chat model",
                "leave it true: without its template a chat model is not the one that people talk to; to compare "
                "with the Open LLM Leaderboard v1, which ran so, set without_template: true as well",
            )
        return bool(one) and self.chat_template

    def _prepared(self, wanted: dict[str, HarnessTask], aids: Aids) -> list[_harness.Task]:
        """Every task with its data, its shots and its metrics checked, before any model works."""
        others = [name for name in wanted if name != _short_facts.NAME]
        aids.progress(f"loading {', '.join(wanted)}")
        tasks = _harness.load_tasks(others, self.include_path) if others else []
        if _short_facts.NAME in wanted:
            tasks.append(_harness.task_of(_short_facts.config()))
        for task in tasks:
            task.set_shots(wanted[task.name].shots)
            _chosen(task, wanted[task.name].metric)
        return sorted(tasks, key=lambda task: list(wanted).index(task.name))


def _offline() -> bool:
    return bool(huggingface_hub.constants.HF_HUB_OFFLINE) or not hub_answers()


def _chosen(task: _harness.Task, metric: str) -> list[str]:
    """The task's metrics that were asked for: all, one, or one under each of its filters."""
    there = task.metrics()
    found = [name for name in there if metric in ("", name, name.partition(",")[0])]
    if not found:
        raise UserError(f"lm_eval: {task.name} has no metric {metric!r}", way_out(metric, there))
    if len(task.leaves) > 1 and not all(task.is_mean(name) for name in found):
        raise UserError(
            f"lm_eval: {task.name} is a group whose {', '.join(found)} is no mean over documents",
            f"ask for its tasks one by one: {', '.join(leaf.task_name for leaf in task.leaves[:5])} …",
        )
    return found


def _paired(one: Answered, two: Answered) -> list[tuple[Document, Document]]:
    pairs = list(zip(one.documents, two.documents, strict=True))
    assert all((a.id, a.prompt) == (b.id, b.prompt) for a, b in pairs), "both models read the same prompts"
    return pairs


def _scored(pairs: Sequence[tuple[Document, Document]], metric: str) -> list[tuple[float, float]]:
    """A metric's figures of the documents that have one under both models."""
    both = [(_figure(one.values.get(metric)), _figure(two.values.get(metric))) for one, two in pairs]
    return [(a, b) for a, b in both if a is not None and b is not None]


def _figure(value: Any) -> float | None:
    """A single finite number, or None: some metrics log what their aggregate is made of."""
    try:
        return float(value) if math.isfinite(value) else None
    except TypeError:
        return None


def _finding(
    task: _harness.Task,
    metric: str,
    pairs: Sequence[tuple[Document, Document]],
    one: Answered,
    two: Answered,
) -> Finding:
    """Paired by document; a metric that is no mean over documents has the harness's figures, and no interval."""
    if not task.is_mean(metric):
        a, b = one.overall.get(metric), two.overall.get(metric)
        change = None if a is None or b is None else b - a
        return Finding(metric, task.name, "score", len(pairs), a, b, difference=change)
    scored = _scored(pairs, metric)
    unscored = len(pairs) - len(scored)
    figures = {figure for pair in scored for figure in pair}
    if figures <= {0.0, 1.0}:
        return Finding.of_rates(metric, [(a == 1, b == 1) for a, b in scored], task.name, unscored)
    unit = "share" if all(0 <= figure <= 1 for figure in figures) else "score"
    return Finding.of_means(metric, unit, scored, task.name, unscored)


def _row(task: str, leaf: str, one: Document, two: Document) -> dict[str, Any]:
    return {
        "task": task,
        "subtask": leaf,
        "doc": one.id,
        "prompt": one.prompt[:16],
        "right": one.right,
        "base": _plain(one.values),
        "rerouted": _plain(two.values),
        "base_said": one.said,
        "rerouted_said": two.said,
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if _figure(value) is None else _figure(value) for name, value in values.items()}


def _where(task: _harness.Task, leaf: Any, number: int) -> str:
    return task.name if len(task.leaves) == 1 else f"{leaf.task_name}, {number} of {len(task.leaves)}"


def _about_template(applied: bool, base: Target) -> str:
    if applied:
        return "The chat template was applied, with worked examples as earlier turns."
    if getattr(base.tokenizer, "chat_template", None):
        return "No chat template was applied to a chat model, as without_template asked."
    return "No chat template was applied: the tokenizer has none."


def _about_choice(measure: LmEval, wanted: dict[str, HarnessTask]) -> list[str]:
    notes = []
    if _short_facts.NAME in wanted:
        why = "" if measure.tasks else "No network, so the Open LLM tasks were not run. "
        notes.append(f"{why}{_short_facts.NAME}: 60 own multiple-choice questions, no published benchmark.")
    if measure.limit is not None:
        notes.append(f"Only the first {measure.limit} documents of each task.")
    return notes


def _about_cuts(name: str, one: Answered) -> list[str]:
    if not one.cut:
        return []
    return [f"{name}: {one.cut} prompts were longer than the model's context and lost their beginning."]
