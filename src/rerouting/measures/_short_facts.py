"""The bundled offline task: sixty multiple-choice questions of the package's own, with four worked examples.

It is no benchmark. Sums, units, places, animals, words: what every useful chat model should know, so that damage shows
where no data set can be had. Sixty questions cannot see less than about ten points.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rerouting.core.files import read_jsonl

NAME = "short_facts"
FILE = Path(__file__).with_name("short_facts.jsonl")


def config() -> dict[str, Any]:
    """The task as the harness's config; its examples are always the same four."""
    rows = read_jsonl(FILE)
    examples = [row for row in rows if row["split"] == "shot"]
    return {
        "task": NAME,
        "custom_dataset": _dataset,
        "output_type": "multiple_choice",
        "test_split": "test",
        "fewshot_config": {"sampler": "first_n", "samples": examples},
        "num_fewshot": len(examples),
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }


def _dataset(**_: Any) -> dict[str, Any]:
    """Nothing is written to a cache, and nothing looked up."""
    import datasets

    rows = [row for row in read_jsonl(FILE) if row["split"] == "test"]
    return {"test": datasets.Dataset.from_list(rows)}
