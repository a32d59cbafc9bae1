"""Cases on disk: one line a behaviour, attack and model, so that a kill loses none that is finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from rerouting.core.attempt import Attempt, behaviour_of, context_of
from rerouting.core.files import append_jsonl, read_jsonl, sha256_of
from rerouting.core.records import Chat

Row = dict[str, Any]


@dataclass(frozen=True)
class CaseFile:
    """All cases of one attack with given options on one model; each process appends to a file of its own.

    Attributes:
        folder: the matrix's folder.
        name: attack, hash of its options, and model ("gcg-1a2b3c4d.base").
        rank: number of this process.
    """

    folder: Path
    name: str
    rank: int = 0

    def append(self, row: Row) -> None:
        """Add one case."""
        append_jsonl(self.folder / "cases" / f"{self.name}.{self.rank}.jsonl", row)

    def rows(self) -> dict[str, Row]:
        """All processes' cases by behaviour; of two for one behaviour the one without a failure, then the later."""
        found: dict[str, Row] = {}
        for file in sorted((self.folder / "cases").glob(f"{self.name}.*.jsonl")):
            for row in read_jsonl(file, tolerate_torn=True):
                if row["id"] not in found or failed(found[row["id"]]) or not failed(row):
                    found[row["id"]] = row
        return found

    def done(self) -> set[str]:
        """Behaviours that need not be attacked again: failed ones do."""
        return {name for name, row in self.rows().items() if not failed(row)}


def failed(row: Row) -> bool:
    """Whether no attempt of the case got an answer."""
    return all(attempt["failure"] for attempt in row["attempts"])


def answered(cases: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Every attempt that got an answer, with its case."""
    return [(case, one) for case in cases for one in case["attempts"] if not one["failure"]]


def case_row(
    chat: Chat,
    set_name: str,
    attempts: Sequence[Attempt],
    prompts: Sequence[str],
    folder: Path,
    **cost: float,
) -> Row:
    """What is kept of one case: the behaviour, every attempt with its exact input and answer, and the cost.

    Args:
        chat: the behaviour's chat, unattacked.
        set_name: where it comes from.
        attempts: all answered or failed.
        prompts: the exact rendered text of each.
        folder: the matrix's folder; soft prompts go to its `embeddings/`.
        cost: forward tokens and seconds.
    """
    return {
        "id": chat.id,
        "set": set_name,
        "functional": chat.meta.get("functional") or "standard",
        "category": chat.category,
        "behaviour": behaviour_of(chat),
        "context": context_of(chat),
        "attempts": [
            _attempt_row(attempt, prompt, folder) for attempt, prompt in zip(attempts, prompts, strict=True)
        ],
        "cost": cost,
    }


def _attempt_row(attempt: Attempt, prompt: str, folder: Path) -> Row:
    return {
        "messages": [{"role": turn.role, "content": turn.content} for turn in attempt.chat.messages],
        "prefill": attempt.prefill,
        "prompt": prompt,
        "ids": None if attempt.ids is None else list(attempt.ids),
        "embeddings": None if attempt.embeddings is None else _saved(attempt, folder),
        "answer": attempt.answer,
        "failure": attempt.failure,
        "trace": attempt.trace,
    }


def _saved(attempt: Attempt, folder: Path) -> str:
    """Write a soft prompt (T, D); its name is the hash of its values."""
    soft = attempt.embeddings.detach().float().cpu().contiguous()
    name = f"embeddings/{sha256_of(soft.numpy().tobytes().hex())[:16]}.safetensors"
    (folder / "embeddings").mkdir(parents=True, exist_ok=True)
    save_file({"embeddings": soft}, folder / name)
    return name
