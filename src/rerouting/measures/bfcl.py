"""The Berkeley Function-Calling Leaderboard's single-turn Python categories: ordinary calls are made as well as before?

Source: Patil et al. 2023, arXiv 2305.15334; questions and answer keys are those of the package bfcl-eval (Apache-2.0),
which are not shipped: `pip download bfcl-eval --no-deps`, unpack the wheel, and give its folder bfcl_eval/data. The
package itself cannot be an extra, it pins numpy 1.26. Scored as there (agents/bfcl.py). Deviations: functions and calls
are written as for `tool_calls` and not by BFCL's prompt; Java and JavaScript, executed, live multi-turn and web
categories are left out. A rate here is not the leaderboard's: the difference between the two models is the point.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rerouting.agents.bfcl import bfcl_mismatch
from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Aids, Measured
from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl
from rerouting.core.findings import MODELS, Finding
from rerouting.core.near import way_out
from rerouting.core.records import Chat, Message
from rerouting.data.call_parsing import parse_calls
from rerouting.data.loading import spread
from rerouting.data.tool_schemas import tool_of
from rerouting.measures._tool_chats import chosen_style, styled
from rerouting.targets.target import Target

Row = dict[str, Any]
STATIC = ("simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance")
CATEGORIES: tuple[str, ...] = STATIC + tuple(
    f"live_{name}" for name in ("simple", "multiple", "parallel", "parallel_multiple", "irrelevance")
)


@dataclass(frozen=True)
class Bfcl:
    """Both models are asked for function calls, greedily."""

    path: str = ""
    """Folder bfcl_eval/data of the package bfcl-eval."""
    categories: list[str] = field(default_factory=lambda: list(STATIC))
    """Of: simple_python, multiple, parallel, parallel_multiple, irrelevance, and the same as live_simple, …"""
    style: Literal["auto", "template", "json", "tagged", "pythonic"] = "auto"
    """How functions and calls are written: as the chat template does, or as text; auto: json for one without them."""
    limit: int | None = None
    """Questions taken of each category, spread evenly; null for all."""

    def measure(self, base: Target, rerouted: Target, aids: Aids) -> Measured:
        """Shares of right answers by category, and of all."""
        style = chosen_style(self.style, base.tokenizer)
        asked = [question for name in self.categories for question in self._questions(name)]
        rows = [{"category": one["category"], "id": one["id"], "keys": one["keys"]} for one in asked]
        attempts = [Attempt(styled(one["chat"], style)) for one in asked]
        for name, target in zip(MODELS, (base, rerouted), strict=True):
            for row, one, text in zip(rows, asked, target.answer(attempts), strict=True):
                row[name] = score(text, one)
        findings = [
            _right([row for row in rows if row["category"] == name], name) for name in self.categories
        ]
        return Measured([_right(rows, ""), *findings], rows, [f"functions and calls are written as: {style}"])

    def _questions(self, category: str) -> list[Row]:
        """A category's questions with their answer keys.

        Raises:
            UserError: no such category or folder, or a question without its key.
        """
        if category not in CATEGORIES:
            raise UserError(
                f"bfcl has no category {category!r} here", way_out(category, CATEGORIES, "there are")
            )
        file = question_file(Path(self.path), category) if self.path else None
        if file is None:
            raise UserError(
                f"bfcl: no questions of {category} in {self.path or 'no folder'}",
                "pip download bfcl-eval --no-deps, unpack the wheel, and give path: …/bfcl_eval/data",
            )
        keys: dict[str, list[Any]] = {}
        if not category.endswith("irrelevance"):
            answers = file.parent / "possible_answer" / file.name
            if not answers.is_file():
                raise UserError(f"bfcl: there is no {answers}", "give the whole folder bfcl_eval/data")
            keys = {row["id"]: row["ground_truth"] for row in read_jsonl(answers)}
        found = []
        for row in spread(list(read_jsonl(file)), self.limit):
            if not category.endswith("irrelevance") and row["id"] not in keys:
                raise UserError(
                    f"bfcl: {row['id']} has no answer key", "take questions and keys of one version"
                )
            found.append(_question(row, category, keys.get(row["id"], [])))
        return found


def question_file(folder: Path, category: str) -> Path | None:
    """BFCL_v4_simple_python.json for "simple_python", of the newest version that is there."""
    names = re.compile(rf"BFCL_v\d+_{category}\.json")
    return max((file for file in folder.glob("BFCL_v*.json") if names.fullmatch(file.name)), default=None)


def _question(row: Row, category: str, keys: list[Any]) -> Row:
    tools = tuple(tool for tool in map(tool_of, row["function"]) if tool is not None)
    turns = tuple(Message(turn["role"], turn["content"]) for turn in row["question"][0])
    chat = Chat(id=row["id"], messages=turns, source=f"bfcl/{category}", tools=tools)
    return {"id": row["id"], "category": category, "keys": keys, "functions": row["function"], "chat": chat}


def score(text: str, question: Row) -> Row:
    """What an answer calls, and how that differs from what is right."""
    parsed = parse_calls(text, question["chat"].tools)
    calls = [found.call for found in parsed.calls]
    wrong = bfcl_mismatch(calls, question["functions"], question["keys"])
    return {"answer": text, "broken": parsed.broken, "mismatch": wrong}


def _right(rows: Sequence[Row], part: str) -> Finding:
    pairs = [(not row["base"]["mismatch"], not row["rerouted"]["mismatch"]) for row in rows]
    return Finding.of_rates("right call", pairs, part)
