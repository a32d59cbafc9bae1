"""Examples from wherever a run keeps them: evaluation sets, attack results, rows of over_refusal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rerouting.core.findings import MODELS
from rerouting.core.kinds import is_harmless_kind
from rerouting.report.figures import TRAIN
from rerouting.report.node import DamagedError, Node
from rerouting.report.parts import Answer, Example
from rerouting.report.pictures import pictures_of
from rerouting.report.reading import Run, sound
from rerouting.report.sets import is_harmful

LONGEST = 2000
"""Characters of a text that are shown."""
ATTACK = "rerouting attack --model RUN"
EVALUATE = "rerouting evaluate RUN"
Gathered = tuple[list[Example], list[str]]


def cut(text: str) -> str:
    """A text, or its beginning and how much is left out."""
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]} … ({left} more characters)"


def from_generations(run: Run) -> Gathered:
    """Examples of the evaluation sets, and what could not be read.

    Raises:
        DamagedError: there is no such file.
    """
    rows, problems = run.rows("generations.jsonl", TRAIN)
    harmful: dict[str, bool] = {}

    def read(row: Node) -> Example:
        name = row["set"].text()
        if name not in harmful:
            harmful[name] = is_harmful(run, name)
        return _example(row, name, harmful[name])

    examples, worse = sound(rows, read)
    return examples, problems + worse


def from_over_refusal(run: Run) -> Gathered:
    """Examples of the measure over_refusal, and what could not be read; none where it was not measured.

    Raises:
        DamagedError: the file cannot be read.
    """
    file = "kept/rows/over_refusal.jsonl"
    if not (run.path / file).exists():
        return [], []
    rows, problems = run.rows(file, EVALUATE)

    def read(row: Node) -> Example:
        source = row["source"].text()
        return _example(row, f"over-refusal: {source}", not is_harmless_kind(source))

    examples, worse = sound(rows, read)
    return examples, problems + worse


def _example(row: Node, name: str, harmful: bool) -> Example:
    answers = []
    for model in MODELS:
        own = row[model]
        words = (cut(own["answer"].text()), own.maybe_text("label"), own.maybe_text("reason"))
        answers.append(Answer(model, *words, prefill=cut(row.maybe_text("prefill"))))
    texts = (row["id"].text(), row.maybe_text("category"), cut(talk(row["messages"])))
    return Example(name, *texts, answers, harmful)


def talk(messages: Node) -> str:
    """Turns as text; a single turn without its role."""
    turns = [(one["role"].text(), one["content"].text()) for one in messages.items()]
    if len(turns) == 1:
        return turns[0][1]
    return "\n".join(f"{role}: {content}" for role, content in turns)


def from_attacks(run: Run) -> Gathered:
    """Of every attacked behaviour the telling attempt on each model, and what could not be read."""
    examples: list[Example] = []
    problems: list[str] = []
    for folder in run.matrices():
        try:
            judge = run.json(f"{folder}/summary.json", ATTACK).maybe_text("judge")
            rows, damaged = run.rows(f"{folder}/results.jsonl", ATTACK)
        except DamagedError as damage:
            problems.append(str(damage))
            continue
        keyed, worse = sound(rows, lambda row: ((row["attack"].text(), row["id"].text()), row))
        cases: dict[tuple[str, str], list[Node]] = {}
        for key, row in keyed:
            cases.setdefault(key, []).append(row)
        found, worst = sound(
            cases.values(),
            lambda case, name=folder, judge=judge: _case(run, name, judge, case),  # type: ignore[misc]
        )
        examples += found
        problems += damaged + worse + worst
    return examples, problems


def _case(run: Run, folder: str, judge: str, rows: Sequence[Node]) -> Example:
    first = rows[0]
    answers = []
    for model in MODELS:
        own = [row for row in rows if row["model"].text() == model]
        if own:
            fell = [at for at, row in enumerate(own) if _said(row, judge) is True]
            answers.append(_attempt(run.path / folder, model, own, fell[0] if fell else 0))
    context = first.maybe_text("context")
    request = first["behaviour"].text() + (f"\n\ncontext: {context}" if context else "")
    name = f"{folder}: {first['attack'].text()}"
    return Example(
        name, first["id"].text(), first.maybe_text("category"), cut(request), answers, harmful=True
    )


def _attempt(folder: Path, model: str, rows: Sequence[Node], at: int) -> Answer:
    row = rows[at]
    failure = row.maybe_text("failure")
    answer = f"no answer: {failure}" if failure else row["answer"].text()
    verdicts = row.get("verdicts")
    words = [_verdict(name, one) for name, one in verdicts.entries()] if verdicts else []
    review = row.get("review")
    if review is not None:
        words.append(("a person", "yes" if review.flag() else "no", ""))
    sent = talk(row["messages"])
    return Answer(
        model,
        cut(answer),
        row.maybe_text("label"),
        row.maybe_text("label_reason"),
        "" if sent == row["behaviour"].text() else cut(sent),
        cut(row.maybe_text("prefill")),
        f"attempt {at + 1} of {len(rows)}",
        words,
        pictures_of(folder, row),
    )


def _verdict(name: str, verdict: Node) -> tuple[str, str, str]:
    given = verdict.get("yes")
    word = "unscored" if given is None else "yes" if given.flag() else "no"
    score = verdict.maybe_number("score")
    reason = verdict.maybe_text("reason")
    return name, word, reason if score is None else f"{reason} ({score:g})".strip()


def _said(row: Node, judge: str) -> bool | None:
    verdicts = row.get("verdicts")
    own = verdicts.get(judge) if verdicts else None
    given = own.get("yes") if own else None
    return None if given is None else given.flag()
