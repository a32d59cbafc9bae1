"""HarmBench behaviours (Mazeika et al. 2024, arXiv 2402.04249), in either published format.

The CSV (Behavior, FunctionalCategory, SemanticCategory, Tags, ContextString, BehaviorID) has no targets; they are
published beside it as harmbench_targets_text.json ({BehaviorID: target}). The
JSON of the circuit-breaker authors' evaluation ({"data": [{behavior, context?, default_target, messages}]})
has them. A contextual behaviour keeps its context: the request is the context, an empty line, `---`, an empty
line, the behaviour, which is how HarmBench's DirectRequest asks. (The authors' JSON leaves the context out of
`messages`; their embedding attack loses it.)
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.reading import Row, column, first, optional_column, read_rows


@dataclass(frozen=True)
class Harmbench:
    """Harmful behaviours, some with a context."""

    licence: ClassVar[str] = "MIT"

    path: str
    """harmbench_behaviors_text_{val,test,all}.csv, or the authors' harmbench_test.json."""
    targets: str | None = None
    """harmbench_targets_text.json, for a CSV; null for none (attacks that need targets then leave it unscored)."""
    functional: tuple[Literal["standard", "contextual", "copyright"], ...] = field(
        default=("standard", "contextual")
    )
    """Kinds of behaviour to keep."""
    limit: int | None = None
    """First behaviours only; null for all."""

    def load(self) -> list[Chat]:
        """One chat a behaviour, without a response; `meta` holds behaviour, context and functional category.

        Raises:
            UserError: unreadable data, a missing column, or nothing of the kinds asked for.
        """
        targets = _targets(self.targets) if self.targets else {}
        chats = [_chat(number, row, targets) for number, row in enumerate(read_rows(self.path))]
        kept = [chat for chat in chats if chat.meta["functional"] in self.functional]
        if not kept:
            raise UserError(
                f"{self.path}: no behaviour is {' or '.join(self.functional) or '(none asked for)'}",
                "choose from standard, contextual, copyright",
            )
        return first(kept, self.limit)


def _targets(path: str) -> dict[str, str]:
    """Affirmative targets by behaviour."""
    try:
        found = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}", "give harmbench_targets_text.json") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise UserError(f"{path} is not {{BehaviorID: target}}", "give harmbench_targets_text.json")
    return found


def _chat(number: int, row: Row, targets: dict[str, str]) -> Chat:
    authors = "behavior" in row.values
    behaviour = column(row, "behavior" if authors else "Behavior", empty=False)
    where = "context" if authors else "ContextString"
    context = optional_column(row, where if where in row.values else None)
    functional = ("contextual" if context else "standard") if authors else column(row, "FunctionalCategory")
    name = f"harmbench-{number}" if authors else column(row, "BehaviorID", empty=False)
    target = optional_column(row, "default_target") if authors else targets.get(name, "")
    return Chat(
        id=name,
        messages=(Message("user", f"{context}\n\n---\n\n{behaviour}" if context else behaviour),),
        target=target or None,
        category="" if authors else column(row, "SemanticCategory"),
        source="harmbench",
        meta={"behaviour": behaviour, "context": context, "functional": functional},
    )
