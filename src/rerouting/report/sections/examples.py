"""A browser of examples: the request, both answers, and what was said of them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import escape

from rerouting.report.figures import spread
from rerouting.report.gathering import from_attacks, from_generations, from_over_refusal
from rerouting.report.node import Damaged
from rerouting.report.parts import Example, Examples, Group, Limits, Note, Section
from rerouting.report.reading import Run

LEAD = (
    "Both models' answers with their labels, the judges' verdicts and reasons. Harmful requests and answers are folded: "
    "open one to read it."
)
BYTES_APIECE = 900
"""Of the markup around an example's text."""


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One group a run."""
    share = limits.examples // max(1, len(runs))
    return Section("examples", "Examples", LEAD, [_group(run, share) for run in runs])


def _group(run: Run, limit: int) -> Group:
    group = Group(run.name)
    found: list[Example] = []
    problems: list[str] = []
    for gather in (from_generations, from_attacks, from_over_refusal):
        try:
            examples, damaged = gather(run)
            found += examples
            problems += damaged
        except Damaged as damage:  # noqa: PERF203
            problems.append(str(damage))
    chosen = _chosen(found, limit)
    if chosen:
        group.parts.append(Examples(run.name, chosen))
    if len(chosen) < len(found):
        group.parts.append(
            Note(
                f"{len(chosen)} of {len(found)} examples are shown, evenly spread over each set; all are in the run's files."
            )
        )
    group.missing(*problems)
    return group


def _chosen(found: Sequence[Example], limit: int) -> list[Example]:
    """Of every set as many, evenly spread, as fit into `limit` bytes."""
    sets: dict[str, list[Example]] = {}
    for one in found:
        sets.setdefault(one.set_name, []).append(one)
    chosen: list[Example] = []
    for own in sets.values():
        left = limit // len(sets)
        count = len(own)
        while count and sum(_size(own[at]) for at in spread(len(own), count)) > left:
            count = count * 3 // 4
        chosen += [own[at] for at in spread(len(own), count)]
    return chosen


def _size(example: Example) -> int:
    """About how many bytes it takes on the page."""
    texts = [example.set_name, example.id, example.category, example.request]
    for one in example.answers:
        texts += [one.text, one.sent, one.prefill, one.reason, *(word for row in one.verdicts for word in row)]
    return BYTES_APIECE + sum(len(str(escape(text)).encode(errors="replace")) for text in texts)
