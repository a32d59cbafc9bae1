"""A browser of examples: the request, both answers, and what was said of them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import escape

from rerouting.report.figures import spread
from rerouting.report.gathering import from_attacks, from_generations, from_over_refusal
from rerouting.report.node import DamagedError
from rerouting.report.parts import Example, Examples, Group, Limits, Note, Section
from rerouting.report.reading import Run

LEAD = (
    "Both models' answers with their labels, the judges' verdicts and reasons. Harmful requests and answers are "
    "folded: open one to read it."
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
        except DamagedError as damage:
            problems.append(str(damage))
    chosen = _chosen(found, limit)
    if chosen:
        group.parts.append(Examples(run.name, chosen))
    if len(chosen) < len(found):
        count = f"{len(chosen)} of {len(found)} examples are here"
        group.parts.append(Note(f"{count}, evenly spread over each set; all are in the run's files."))
    group.damaged(*problems)
    return group


def _chosen(found: Sequence[Example], limit: int) -> list[Example]:
    """Of every set as many, evenly spread, as fit into `limit` bytes."""
    sets: dict[str, list[Example]] = {}
    for one in found:
        sets.setdefault(one.set_name, []).append(one)
    sizes = {name: sum(map(_size, own)) for name, own in sets.items()}
    counts, left = {}, limit
    for at, name in enumerate(sorted(sets, key=lambda one: sizes[one])):
        own, share = sets[name], left // (len(sets) - at)
        count = len(own)
        while count and sum(_size(own[place]) for place in spread(len(own), count)) > share:
            count = count * 4 // 5
        counts[name] = count
        left -= sum(_size(own[place]) for place in spread(len(own), count))
    return [own[place] for name, own in sets.items() for place in spread(len(own), counts[name])]


def _size(example: Example) -> int:
    """About how many bytes it takes on the page."""
    texts = [example.set_name, example.id, example.category, example.request]
    for one in example.answers:
        texts += [
            one.text,
            one.sent,
            one.prefill,
            one.reason,
            *(word for row in one.verdicts for word in row),
            *(picture.data for picture in one.pictures),
        ]
    return BYTES_APIECE + sum(len(str(escape(text)).encode(errors="replace")) for text in texts)
