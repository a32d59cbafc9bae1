"""Test cases that were made elsewhere (HarmBench's format: GCG-T, TAP-T, HumanJailbreaks …), by path."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerouting.core.attempt import Attempt, ask, behaviour_of, context_of
from rerouting.core.errors import UserError
from rerouting.core.records import Chat


@dataclass(frozen=True)
class Static:
    """Transferred prompts."""

    path: str
    """JSON: {behaviour id or text: [test case, …]}, as HarmBench's test_cases.json."""
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
        try:
            table = json.loads(Path(self.path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"cannot read {self.path}: {error.strerror}", "check attack_options.static.path"
            ) from error
        except ValueError as error:
            raise UserError(
                f"{self.path} is not JSON: {error}", "give HarmBench's test_cases.json"
            ) from error
        good = isinstance(table, dict) and all(
            isinstance(cases, list) and all(isinstance(case, str) for case in cases)
            for cases in table.values()
        )
        if not good:
            raise UserError(
                f"{self.path} is not {{behaviour: [text, …]}}", "give HarmBench's test_cases.json"
            )
        return dict(table)
