"""The tokenised streams of a run on disk: what was trained on, and what a resumed run goes on with."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rerouting.core.files import atomic_folder, read_jsonl, write_jsonl
from rerouting.data.formatting import Example
from rerouting.training.loop import TrainingData


def save_streams(data: TrainingData, folder: Path) -> None:
    """One JSON Lines file a stream, all of them or none."""
    with atomic_folder(folder) as work:
        for field in fields(data):
            write_jsonl(work / f"{field.name}.jsonl", [_row(item) for item in getattr(data, field.name)])


def load_streams(folder: Path) -> TrainingData:
    """The streams as they were saved.

    Raises:
        UserError: a file is damaged.
    """
    return TrainingData(
        **{
            field.name: [
                Example(
                    *(tuple(row["ids"]), row["n_prompt"], tuple(row["mask"]), row["chat_id"]),
                    tuple(row.get("images", ())),
                )
                for row in read_jsonl(folder / f"{field.name}.jsonl")
            ]
            for field in fields(TrainingData)
        }
    )


def _row(example: Example) -> dict[str, Any]:
    """One line, as it always was where there are no pictures."""
    row = asdict(example)
    return row if example.images else {name: item for name, item in row.items() if name != "images"}
