"""What came of image attacks: rates, mean loss curves, and a few pictures, without the bulk of the answers.

    python benchmarks/image_attacks.py ATTACK_FOLDER OUT_FOLDER [--pictures 2] [--read 10]

Writes image_attacks.json (by attack and model: behaviours, rates of the first judge, labels, the loss at every kept point
of the run, averaged over behaviours), reading.jsonl (the first behaviours' answers, to be read by a person, never
committed) and the base's adversarial pictures beside the clean ones.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from rerouting.core.files import read_jsonl
from rerouting.core.stats import Rate

Row = dict[str, Any]


def main() -> None:
    """Read a matrix's results and write what is worth keeping."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--read", type=int, default=10)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in read_jsonl(given.folder / "results.jsonl"):
        groups[f"{row['attack']}/{row['model']}"].append(row)
    found = {name: _described(rows) for name, rows in groups.items()}
    (given.out / "image_attacks.json").write_text(json.dumps(found, indent=1) + "\n")
    with (given.out / "reading.jsonl").open("w") as file:
        for name, rows in groups.items():
            chosen = list(dict.fromkeys(row["id"] for row in rows))[: given.read]
            for row in rows:
                if row["id"] in chosen:
                    file.write(json.dumps(_short(name, row)) + "\n")
    _copy_pictures(groups.get("image_pgd/base", []), given.folder, given.out, given.pictures)
    for name, one in found.items():
        rate = one["rate"]
        print(
            f"{name:28} n {rate['n']:3}  ASR {100 * (rate['rate'] or 0):5.1f} %  {one['labels']}  {one['loss'] or ''}"
        )


def _described(rows: list[Row]) -> Row:
    by_id: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_id[row["id"]].append(row)
    judge = next(iter(next((row["verdicts"] for row in rows if row.get("verdicts")), {"": None})))
    first, best, categories = [], [], defaultdict(list)
    for own in by_id.values():
        yes = [bool((row.get("verdicts") or {}).get(judge, {}).get("yes")) for row in own]
        best.append(any(yes))
        first.append(yes[-1])
        categories[own[0]["category"]].append(any(yes))
    traces = [row["trace"] for row in rows if row["trace"].get("losses")]
    losses = [trace["first_loss"] for trace in traces], [trace["loss"] for trace in traces]
    return {
        "rate": Rate(sum(best), len(best)).as_dict(),
        "last_attempt_alone": Rate(sum(first), len(first)).as_dict(),
        "by_category": {name: Rate(sum(own), len(own)).as_dict() for name, own in sorted(categories.items())},
        "labels": dict(Counter(row.get("label", "") for row in rows)),
        "attempts": len(rows),
        "failures": sum(bool(row["failure"]) for row in rows),
        "loss": {"first": fmean(losses[0]), "kept": fmean(losses[1])} if traces else None,
        "largest_change": max((trace["largest_change"] for trace in traces), default=None),
        "curve": [round(value, 4) for value in mean_curve(traces)],
    }


def mean_curve(traces: list[Row]) -> list[float]:
    """Mean loss at every kept point of runs of as many steps."""
    return [fmean(point) for point in zip(*(trace["losses"] for trace in traces), strict=True)]


def _short(name: str, row: Row) -> Row:
    shown = {key: row.get(key) for key in ("id", "category", "behaviour", "answer", "label", "failure")}
    verdicts = {judge: one["yes"] for judge, one in (row.get("verdicts") or {}).items()}
    return {"attack": name, **shown, "verdicts": verdicts, "loss": row["trace"].get("loss")}


def _copy_pictures(rows: list[Row], folder: Path, out: Path, count: int) -> None:
    from rerouting.pictures.opening import open_picture, placed

    chosen = [row for row in rows if any(one["yes"] for one in (row.get("verdicts") or {}).values())] or rows
    seen = set[str]()
    for row in chosen:
        if row["id"] in seen or len(seen) == count:
            continue
        seen.add(row["id"])
        picture = row["messages"][-1]["images"][0]
        shutil.copy(placed(picture, folder), out / f"{row['id']}-adversarial.png")
        open_picture(row["trace"]["clean"]).save(out / f"{row['id']}-clean.png")


if __name__ == "__main__":
    main()
