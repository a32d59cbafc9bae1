"""Tables of a matrix with what a person found when reading its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rerouting.core.agreement import agreement
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, read_jsonl
from rerouting.core.stats import Rate
from rerouting.evaluation.asr import summarise_attack
from rerouting.evaluation.asr_table import write_tables
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
    cases = _cases(read_jsonl(out / "results.jsonl"))
    known = Reviews(out / REVIEWS).known()
    for rows in cases.values():
        mark(rows, known)
    lines = []
    for name, parts in summary["attacks"].items():
        if "skipped" in parts:
            continue
        found = summarise_attack(cases[name, "base"], cases[name, "rerouted"], summary["judge"])
        summary["attacks"][name] = found
        for model in ("base", "rerouted"):
            verified = found["all"][model].get("verified")
            if verified:
                raw, read = (_rate(rate) for rate in (found["all"][model]["asr"], verified))
                lines.append(
                    f"{name} on {model}: raw {raw}, verified {read}; {verified['read']} answers read"
                )
    flat = [
        attempt
        for rows in cases.values()
        for case in rows
        for attempt in case["attempts"]
        if not attempt["failure"]
    ]
    summary["agreement"] = agreements(flat)
    atomic_write(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    write_tables(summary, out)
    return lines


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


def _cases(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Attempts of results.jsonl, gathered into their cases again."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        table = found.setdefault((row["attack"], row["model"]), {})
        table.setdefault(row["id"], row | {"attempts": []})["attempts"].append(row)
    return {key: list(table.values()) for key, table in found.items()}


def _rate(rate: Row) -> str:
    return str(Rate(rate["hits"], rate["n"], rate["unscored"]))


def _summary(out: Path) -> Row:
    if not (out / "summary.json").is_file() or not (out / "results.jsonl").is_file():
        raise UserError(f"{out} holds no attack results", "give the folder that `rerouting attack` wrote")
    found: Row = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return found
