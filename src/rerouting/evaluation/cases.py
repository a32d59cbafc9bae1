"""Cases on disk: one line a behaviour, attack and model, so that a kill loses none that is finished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from rerouting.core.attempt import Attempt, behaviour_of, context_of
from rerouting.core.files import append_jsonl, read_jsonl, sha256_of
from rerouting.core.records import Chat, Message, shown
from rerouting.data.messages import parse_messages, with_pictures
from rerouting.pictures.opening import identity, placed, portable

Row = dict[str, Any]


CASE_FIELDS = (
    *("id", "set", "functional", "category", "behaviour", "context"),
    *("asked", "loop_judge", "cost"),
)
"""What a case's attempts share."""


@dataclass(frozen=True)
class CaseFile:
    """All cases of one attack with given options on one model; each process appends to a file of its own.

    Attributes:
        folder: the matrix's folder.
        name: attack, hash of its options, and model ("gcg-1a2b3c4d.base").
        rank: number of this process.
        judge: names the judge, with its options, that attacks ask while they search; their cases are no other judge's.
    """

    folder: Path
    name: str
    rank: int = 0
    judge: str = ""

    def append(self, row: Row) -> None:
        """Add one case."""
        append_jsonl(self.folder / "cases" / f"{self.name}.{self.rank}.jsonl", row)

    def rows(self, chats: Sequence[Chat]) -> dict[str, Row]:
        """All processes' cases of these behaviours as they now read, by id; of two the whole one, then the later."""
        wanted = {chat.id: asked(chat) for chat in chats}
        found: dict[str, Row] = {}
        for file in sorted((self.folder / "cases").glob(f"{self.name}.*.jsonl")):
            for row in read_jsonl(file, tolerate_torn=True):
                name = row["id"]
                if row["asked"] != wanted.get(name) or row["loop_judge"] not in (None, self.judge):
                    continue
                if name not in found or _completeness(row) >= _completeness(found[name]):
                    found[name] = row
        return found

    def done(self, chats: Sequence[Chat]) -> set[str]:
        """Behaviours that need not be attacked again: failed ones do."""
        return {name for name, row in self.rows(chats).items() if not failed(row)}


def asked(chat: Chat) -> str:
    """Names what is asked for: a changed request, context or target is another case."""
    turns = [[turn.role, turn.content] for turn in chat.messages]
    pictures = [list(map(identity, chat.images))] if chat.images else []
    return sha256_of([turns, chat.target, behaviour_of(chat), context_of(chat), *pictures])[:16]


def failed(row: Row) -> bool:
    """Whether no attempt of the case got an answer, or one failed in a way that may be over by now."""
    return all(one["failure"] for one in row["attempts"]) or any(one["passing"] for one in row["attempts"])


def _completeness(row: Row) -> tuple[bool, int]:
    return not failed(row), sum(not one["failure"] for one in row["attempts"])


def answered(cases: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Every attempt that got an answer, with its case."""
    return [(case, one) for case in cases for one in case["attempts"] if not one["failure"]]


def case_row(
    chat: Chat,
    set_name: str,
    attempts: Sequence[Attempt],
    prompts: Sequence[str],
    file: CaseFile,
    loop_judge: str | None,
    **cost: float,
) -> Row:
    """What is kept of one case: the behaviour, every attempt with its exact input and answer, and the cost.

    Args:
        chat: the behaviour's chat, unattacked.
        set_name: where it comes from.
        attempts: all answered or failed.
        prompts: the exact rendered text of each.
        file: where the case goes; soft prompts go to its folder's `embeddings/`.
        loop_judge: the judge that the attack asked, if it did.
        cost: forward tokens and seconds.
    """
    return {
        "id": chat.id,
        "set": set_name,
        "functional": chat.meta.get("functional") or "standard",
        "category": chat.category,
        "behaviour": behaviour_of(chat),
        "context": context_of(chat),
        "asked": asked(chat),
        "loop_judge": loop_judge,
        "attempts": [
            _attempt_row(attempt, prompt, file.folder)
            for attempt, prompt in zip(attempts, prompts, strict=True)
        ],
        "cost": cost,
    }


def _attempt_row(attempt: Attempt, prompt: str, folder: Path) -> Row:
    return {
        "messages": [_portable(shown(turn), folder) for turn in attempt.chat.messages],
        "prefill": attempt.prefill,
        "prompt": prompt,
        "ids": None if attempt.ids is None else list(attempt.ids),
        "embeddings": None if attempt.embeddings is None else _saved(attempt, folder),
        "answer": attempt.answer,
        "failure": attempt.failure,
        "passing": attempt.passing,
        "trace": _finite(attempt.trace),
    }


def _portable(turn: Row, folder: Path) -> Row:
    images = [portable(image, folder) for image in turn.get("images", ())]
    return turn | ({"images": images} if images else {})


def turns_of(attempt: Row, folder: Path) -> tuple[Message, ...]:
    """What an attempt sent, from its row; its pictures where the matrix's folder is now."""
    turns = parse_messages(attempt["messages"], "an attempt")
    return with_pictures(turns, lambda image: placed(image, folder))


def _finite(value: Any) -> Any:
    """Infinity and NaN, which JSON cannot hold, as text."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _saved(attempt: Attempt, folder: Path) -> str:
    """Write a soft prompt (T, D); its name is the hash of its values."""
    soft = attempt.embeddings.detach().float().cpu().contiguous()
    name = f"embeddings/{sha256_of(soft.numpy().tobytes().hex())[:16]}.safetensors"
    (folder / "embeddings").mkdir(parents=True, exist_ok=True)
    save_file({"embeddings": soft}, folder / name)
    return name
