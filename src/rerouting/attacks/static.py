"""Test cases that were made elsewhere (GCG-T, TAP-T, HumanJailbreaks …), by path or hub name.

HarmBench's format is {behaviour: [test case, …]}; a table of one test case, or one list of them, a row is read too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from rerouting.core.attempt import Attempt, ask, behaviour_of, context_of
from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.reading import Row, column, read_rows

_BEHAVIOURS = ("behavior_id", "BehaviorID", "behaviour_id", "behavior", "Behavior", "behaviour", "goal")
_CASES = ("test_case", "test_cases", "prompt", "jailbreak", "text")


@dataclass(frozen=True)
class Static:
    """Transferred prompts."""

    path: str
    """JSON: {behaviour id or text: [test case, …]}, as HarmBench's test_cases.json; or a file, folder or hub data set
    with a column of behaviours (their ids or texts) and one of test cases."""
    split: str = "train"
    """Split of a folder or of a hub data set."""
    per_behaviour: int | None = None
    """First test cases only; null for all."""

    def prompts(self, chats: Sequence[Chat]) -> list[Attempt]:
        """One attempt a test case; a behaviour without any is unscored.

        Raises:
            UserError: an unreadable file, or one of another shape.
        """
        table = self._table()
        return [attempt for chat in chats for attempt in self._of(chat, table)]

    def _of(self, chat: Chat, table: dict[str, list[str]]) -> list[Attempt]:
        cases = table.get(chat.id) or table.get(behaviour_of(chat)) or []
        if not cases:
            return [Attempt(chat, failure=f"{self.path} has no test case for {chat.id}")]
        context = context_of(chat)
        sent = []
        for case in cases[: self.per_behaviour]:
            whole = (
                not context or context in case
            )  # a case of a contextual behaviour may hold its context already
            sent.append(Attempt(chat.with_request(case) if whole else ask(chat, case)))
        return sent

    def _table(self) -> dict[str, list[str]]:
        content = self._json()
        if content is None:
            return _from_rows(read_rows(self.path, self.split), self.path)
        good = isinstance(content, dict) and all(_is_cases(cases) for cases in content.values())
        if not good:
            raise UserError(
                f"{self.path} is not {{behaviour: [text, …]}}", "give HarmBench's test_cases.json"
            )
        return dict(content)

    def _json(self) -> Any:
        """What stands in a JSON file; None for rows: in other files, on the hub, or in a list of records."""
        file = Path(self.path).expanduser()
        if file.suffix.lower() != ".json":
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise UserError(
                f"cannot read {self.path}: {error.strerror}", "check attack_options.static.path"
            ) from error
        except ValueError as error:
            raise UserError(
                f"{self.path} is not JSON: {error}", "give HarmBench's test_cases.json"
            ) from error
        records = isinstance(content, list) and content and all(isinstance(row, dict) for row in content)
        return None if records else content


def _is_cases(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(case, str) for case in value)


def _from_rows(rows: Sequence[Row], path: str) -> dict[str, list[str]]:
    """Test cases by each name that a row gives its behaviour."""
    there = rows[0].values
    names = [name for name in _BEHAVIOURS if name in there]
    cases = next((name for name in _CASES if name in there), None)
    if not names or cases is None:
        raise UserError(
            f"{path} has no columns of behaviours and test cases, but: {', '.join(map(str, there))}",
            f"name one of them {', '.join(_BEHAVIOURS)}, and one {', '.join(_CASES)}",
        )
    table: dict[str, list[str]] = {}
    for row in rows:
        value = row.values.get(cases)
        found = value if _is_cases(value) else [column(row, cases, empty=False)]
        for key in {column(row, name, empty=False) for name in names}:
            table.setdefault(key, []).extend(found)
    return table
