"""Requests that a run was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rerouting.core.files import read_jsonl
from rerouting.core.prompts import Prompt
from rerouting.core.records import Chat
from rerouting.core.rundir import RunDir, is_run
from rerouting.data.formatting import render_prompt
from rerouting.models.loading import LoadedModel
from rerouting.pictures.opening import named


class Unseen:
    """Of chats those that no stream of the run has; all of them where the model is no run."""

    def __init__(self, folder: Path, base: LoadedModel) -> None:
        self.tokenizer, self.seen = base.tokenizer, set[tuple[int | str, ...]]()
        if is_run(folder):
            streams = RunDir.of_another_process(folder).streams
            for name in ("circuit_breaker", "retain"):
                file = streams / f"{name}.jsonl"
                rows = read_jsonl(file) if file.exists() else []
                self.seen |= {
                    _name(Prompt(row["ids"][: row["n_prompt"]], row.get("images", ()))) for row in rows
                }

    def __call__(self, chats: Sequence[Chat]) -> list[Chat]:
        """Those that were not."""
        return [chat for chat in chats if _name(render_prompt(chat, self.tokenizer)) not in self.seen]


def _name(prompt: Sequence[int]) -> tuple[int | str, ...]:
    """A prompt with its pictures by content: all pictures of a size are the same tokens."""
    return tuple(named(prompt))
