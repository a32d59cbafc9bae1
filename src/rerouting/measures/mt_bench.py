"""MT-Bench: 80 questions of two turns, each turn's answer rated from 1 to 10 by a chat model.

Source: Zheng et al. 2023, arXiv 2306.05685; settings (categories with references, temperatures, 1,024 new tokens) as in
FastChat's llm_judge. The questions (FastChat, Apache-2.0) are not shipped. The published score is the mean of all 160
ratings; here the unit is the question (mean of its turns), which is the same figure, and an interval that does not take
two turns of one conversation for independent. Deviations: greedy answers unless asked otherwise; references are those
of the question file, where the authors' are GPT-4's answers. Scores of different judges cannot be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Aids, Measured
from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl
from rerouting.core.findings import MODELS, Finding
from rerouting.core.records import Chat, Message
from rerouting.data.loading import spread
from rerouting.measures._mt_bench_judge import Graded, Talk, grade, named, tried
from rerouting.targets.remembered import Remembered
from rerouting.targets.target import Target

WITH_REFERENCE = ("math", "reasoning", "coding")
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
"""FastChat's; every other category is answered greedily."""

Turns = tuple[str, str]
Grades = tuple[Graded, Graded]


@dataclass(frozen=True)
class Question:
    """One row of the question file."""

    id: str
    category: str
    turns: Turns
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class MtBench:
    """Both models answer both turns, each with its own first answer in view; the judge is the run's assistant."""

    path: str = ""
    """FastChat's question.jsonl: question_id, category, turns (two), and reference (two) where there is one."""
    limit: int | None = None
    """Most questions, spread evenly over the file; null for all."""
    temperatures: Literal["greedy", "published"] = "greedy"
    """greedy: both models always write their likeliest answer; published: sampled at FastChat's temperature of each
    category."""
    max_new_tokens: int = 1024
    """Length at which an answer is cut."""
    judge_tokens: int = 1024
    """Length at which the judge's reply is cut."""

    def measure(self, base: Target, rerouted: Target, aids: Aids) -> Measured:
        """Mean scores overall, by turn and by category; one row a question and turn, with all texts.

        Raises:
            UserError: no questions, or a judge that rates nothing.
        """
        questions = read_questions(self.path, self.limit)
        notes = tried(aids, self.judge_tokens)
        answers, grades = [], []
        for name, target in (("base", base), ("rerouted", rerouted)):
            aids.progress(f"{len(questions)} questions, two turns, answers of the {name} model")
            answers.append(self._answers(target, questions, aids.seed))
        for texts in answers:
            aids.progress(f"{named(aids.assistant)} grades {2 * len(questions)} answers")
            grades.append(self._grades(aids, questions, texts))
        if not any(graded.score for each in grades for pair in each for graded in pair):
            first = grades[0][0][0]
            raise UserError(
                f"mt_bench: the judge, {named(aids.assistant)}, rated no answer: {first.reason}",
                "give a stronger chat model: --assistant endpoint --assistant_options '{model: …}'",
            )
        rows = [
            row
            for at, question in enumerate(questions)
            for row in _rows(question, [texts[at] for texts in answers], [each[at] for each in grades])
        ]
        return Measured(_findings(questions, grades), rows, notes + self._about(base, aids, rows))

    def _answers(self, target: Target, questions: Sequence[Question], seed: int) -> list[Turns]:
        """Both answers to every question; the model's own first one is part of the second turn's prompt."""
        writer = _writer(target, self.max_new_tokens)
        first = self._turn(writer, [_chat(question) for question in questions], questions, seed)
        chats = [_chat(question, text) for question, text in zip(questions, first, strict=True)]
        return list(zip(first, self._turn(writer, chats, questions, seed), strict=True))

    def _turn(
        self, writer: Target, chats: Sequence[Chat], questions: Sequence[Question], seed: int
    ) -> list[str]:
        warmth = [
            TEMPERATURES.get(question.category, 0.0) if self.temperatures == "published" else 0.0
            for question in questions
        ]
        texts = [""] * len(chats)
        for temperature in sorted(set(warmth)):
            places = [at for at, own in enumerate(warmth) if own == temperature]
            wrote = writer.answer([Attempt(chats[at]) for at in places], temperature=temperature, seed=seed)
            for at, text in zip(places, wrote, strict=True):
                texts[at] = text
        return texts

    def _grades(self, aids: Aids, questions: Sequence[Question], answers: Sequence[Turns]) -> list[Grades]:
        talks = [
            Talk(question.turns[:turn], own[:turn], question.references[:turn])
            for question, own in zip(questions, answers, strict=True)
            for turn in (1, 2)
        ]
        found = grade(aids.assistant, talks, aids.seed, self.judge_tokens)
        return list(zip(found[::2], found[1::2], strict=True))

    def _about(self, base: Target, aids: Aids, rows: Sequence[dict[str, Any]]) -> list[str]:
        notes = [
            f"Answers: {self.temperatures}, at most {self.max_new_tokens} tokens. Judge's wording: our own; not "
            "comparable with published MT-Bench scores."
        ]
        if getattr(aids.assistant, "model", None) == base.loaded.name:
            notes.append("The judge is the base model itself: it grades its own answers.")
        missing = sum(row[f"{who}_score"] is None for row in rows for who in MODELS)
        if missing:
            reasons = {row[f"{who}_unscored"] for row in rows for who in MODELS if row[f"{who}_unscored"]}
            notes.append(f"{missing} of {2 * len(rows)} answers unscored: {'; '.join(sorted(reasons)[:3])}.")
        return notes


def _writer(target: Target, tokens: int) -> Target:
    """The same model with another length of answers; kept in a file beside the others, where they are kept."""
    if isinstance(target, Remembered):
        file = target.file.with_name(f"{target.file.name.partition('.')[0]}.{tokens}-tokens.jsonl")
        return Remembered(target.loaded, tokens, file, target.name)
    return Target(target.loaded, tokens, target.token_budget)


def read_questions(path: str, limit: int | None = None) -> list[Question]:
    """The question file's rows, or `limit` of them, evenly spread.

    Raises:
        UserError: no such file, or a row without id, category and two turns.
    """
    file = Path(path).expanduser()
    if not path or not file.is_file():
        raise UserError(
            f"mt_bench: no question file at {path!r}" if path else "mt_bench: its questions are not shipped",
            "give path, FastChat's question.jsonl (github.com/lm-sys/FastChat, "
            "fastchat/llm_judge/data/mt_bench/question.jsonl)",
        )
    if limit is not None and limit < 1:
        raise UserError(f"mt_bench: limit is {limit}", "give a positive number, or null for all")
    rows = read_jsonl(file)
    questions = [_question(row, f"{file}, record {number}") for number, row in enumerate(rows, 1)]
    if not questions:
        raise UserError(f"mt_bench: {file} holds no questions", "give FastChat's question.jsonl")
    return spread(questions, limit)


def _question(row: dict[str, Any], where: str) -> Question:
    turns = _two_texts(row.get("turns"))
    if turns is None or "question_id" not in row or not isinstance(row.get("category"), str):
        raise UserError(
            f"mt_bench: {where}: not a question", "each row has question_id, category and two turns"
        )
    references = _two_texts(row.get("reference")) if row["category"] in WITH_REFERENCE else None
    return Question(str(row["question_id"]), row["category"], turns, references or ())


def _two_texts(value: Any) -> Turns | None:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value):
        return value[0], value[1]
    return None


def _chat(question: Question, answer: str | None = None) -> Chat:
    first = Message("user", question.turns[0])
    if answer is None:
        return Chat(question.id, (first,))
    return Chat(question.id, (first, Message("assistant", answer), Message("user", question.turns[1])))


def _findings(questions: Sequence[Question], grades: Sequence[Sequence[Grades]]) -> list[Finding]:
    """Overall first, then by turn, then by category."""
    every = list(range(len(questions)))
    found = [_score(grades, every, (0, 1), "")]
    found += [_score(grades, every, (turn,), f"turn {turn + 1}") for turn in (0, 1)]
    for category in dict.fromkeys(question.category for question in questions):
        own = [at for at in every if questions[at].category == category]
        found.append(_score(grades, own, (0, 1), f"category/{category}"))
    return found


def _score(
    grades: Sequence[Sequence[Grades]], places: Sequence[int], turns: Sequence[int], part: str
) -> Finding:
    """Mean of the questions' scores over these turns; a question that lacks one for either model enters nothing."""
    pairs = []
    for at in places:
        scores = [[each[at][turn].score for turn in turns] for each in grades]
        means = [_mean(own) for own in scores]
        if means[0] is not None and means[1] is not None:
            pairs.append((means[0], means[1]))
    return Finding.of_means("score", "points", pairs, part, len(places) - len(pairs))


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if len(known) == len(scores) else None


def _rows(question: Question, answers: Sequence[Turns], grades: Sequence[Grades]) -> list[dict[str, Any]]:
    rows = []
    for turn in (0, 1):
        row: dict[str, Any] = {
            "question": question.id,
            "category": question.category,
            "turn": turn + 1,
            "asked": question.turns[turn],
            "reference": question.references[turn] if question.references else None,
        }
        for name, texts, graded in zip(MODELS, answers, grades, strict=True):
            row[f"{name}_answer"] = texts[turn]
            row[f"{name}_score"] = graded[turn].score
            row[f"{name}_judge"] = graded[turn].said
            row[f"{name}_unscored"] = graded[turn].reason
        rows.append(row)
    return rows
