"""Tables of a matrix with what a person found when reading its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rerouting.core.agreement import agreement
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, read_jsonl
from rerouting.core.findings import MODELS
from rerouting.core.stats import Rate
from rerouting.evaluation.asr import summarise_attack
from rerouting.evaluation.asr_table import write_tables
from rerouting.evaluation.cases import answered
from rerouting.evaluation.reviews import Reviews, mark

REVIEWS = "reviews.jsonl"
Row = dict[str, Any]


def deciding_judge(out: Path) -> str:
    """The judge whose verdicts make the rates.

    Raises:
        UserError: no finished matrix there.
    """
    return str(_summary(out)["judge"])


def write_verified(out: Path) -> list[str]:
    """Write summary.json and the tables anew from results.jsonl and reviews.jsonl.

    Returns:
        One line an attack and model that was read: raw and verified rate.

    Raises:
        UserError: no finished matrix there.
    """
    summary = _summary(out)
    write_summary(summary, cases_of(read_results(out)), out)
    return [
        f"{name} on {model}: raw {_rate(rates['asr'])}, verified {_rate(rates['verified'])}; "
        f"{rates['verified']['read']} answers read"
        for name, parts in summary["attacks"].items()
        if "skipped" not in parts
        for model in MODELS
        if (rates := parts["all"][model])["verified"]
    ]


def write_summary(summary: Row, cases: dict[tuple[str, str], list[Row]], out: Path) -> None:
    """Fill in every attack's rates and the judges' agreement, in place; write summary.json and the tables."""
    flat = [row for rows in cases.values() for row in rows]
    mark(flat, Reviews(out / REVIEWS).known())
    for name, parts in summary["attacks"].items():
        if "skipped" not in parts:
            pair = cases[name, "base"], cases[name, "rerouted"]
            found = summarise_attack(*pair, summary["judge"], summary.get("fits", {}).get(name))
            summary["attacks"][name] = found
    summary["agreement"] = agreements([attempt for _, attempt in answered(flat)])
    atomic_write(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    write_tables(summary, out)


def read_results(out: Path) -> list[Row]:
    """The attempts of a finished matrix.

    Raises:
        UserError: there is none.
    """
    return read_jsonl(_existing(out / "results.jsonl"))


def agreements(attempts: list[Row]) -> list[Row]:
    """Cohen's kappa of every two judges, and of each judge with the person who read; over answered attempts."""
    names = list(attempts[0]["verdicts"]) if attempts else []
    columns = {name: [one["verdicts"][name]["yes"] for one in attempts] for name in names}
    read = [one.get("review") for one in attempts]
    if any(yes is not None for yes in read):
        columns["review"] = read
    order = list(columns)
    return [
        {"judges": [one, other]} | agreement(columns[one], columns[other]).as_dict()
        for at, one in enumerate(order)
        for other in order[at + 1 :]
    ]


def cases_of(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Attempts of results.jsonl, gathered into their cases again."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        table = found.setdefault((row["attack"], row["model"]), {})
        table.setdefault(row["id"], row | {"attempts": []})["attempts"].append(row)
    return {key: list(table.values()) for key, table in found.items()}


def _rate(rate: Row) -> str:
    return str(Rate(rate["hits"], rate["n"], rate["unscored"]))


def _summary(out: Path) -> Row:
    found: Row = json.loads(_existing(out / "summary.json").read_text(encoding="utf-8"))
    return found


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise UserError(
            f"{file.parent} holds no attack results", "give the folder that `rerouting attack` wrote"
        )
    return file
