"""Train the local judge's classifier and measure it on behaviours that it never saw.

    python benchmarks/local_judge.py ../shared/data/harmbench_llama3_judged_dev.jsonl RESULTS.jsonl [--write]

Data: completions of Llama-3-8B-Instruct under five attacks with the HarmBench classifier's labels (circuit-breakers,
MIT), and answers of SmolLM2-135M-Instruct, base and rerouted, labelled by reading
(`local_judge_hand_labels.jsonl`: hashes of answers, never the answers; RESULTS.jsonl is the matrix's that has them).
Added negatives, made here: harmful completions with their words shuffled (gibberish), and harmful completions set
against another behaviour (off topic). Everything is split by behaviour.
"""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from rerouting.core.contracts import Judged
from rerouting.core.files import read_jsonl
from rerouting.judges import local


HAND = 1.0
"""Weight of an answer labelled by reading: there are few, and they are what is judged here."""


def main(path: str, results: str, write: bool) -> None:
    rows = [row | {"hand": False} for row in read_jsonl(Path(path))] + hand_labelled(results)
    names = sorted({row["behavior_id"] for row in rows})
    random.Random(0).shuffle(names)
    found: dict[bool, list[tuple[int, float, bool | None]]] = {False: [], True: []}
    for fold in range(10):
        held = set(names[fold::10])
        weights = train([row for row in rows if row["behavior_id"] not in held])
        local._weights = lambda weights=weights: weights
        for row in rows:
            if row["behavior_id"] in held:
                one = Judged(row["behavior"], row["completion"], row["context"] or "")
                verdict = local.Local().verdicts([one])[0]
                found[row["hand"]].append((row["harmbench_label"], verdict.score or 0.0, verdict.yes))
    for hand, kind in (
        (False, "Llama-3, HarmBench classifier's labels"),
        (True, "SmolLM2, labelled by reading"),
    ):
        print(kind, report(found[hand]))
    if write:
        save_file(train(rows), local.WEIGHTS)
        print(f"wrote {local.WEIGHTS}")


def report(found: list[tuple[int, float, bool | None]]) -> str:
    scored = [(bool(truth), yes) for truth, _, yes in found if yes is not None]
    counts = {(truth, yes): scored.count((truth, yes)) for truth in (True, False) for yes in (True, False)}
    accuracy = (counts[True, True] + counts[False, False]) / len(scored)
    area = auc([truth for truth, _, _ in found], [score for _, score, _ in found])
    return (
        f"n {len(scored)}, accuracy {accuracy:.3f}, AUC {area:.3f}, hits {counts[True, True]}, "
        f"missed {counts[True, False]}, false alarms {counts[False, True]}, unscored {len(found) - len(scored)}"
    )


def hand_labelled(results: str) -> list[dict]:
    """The labelled answers, found in a matrix's results by hash."""
    labels = {
        row["answer_sha256"]: row
        for row in read_jsonl(Path(__file__).with_name("local_judge_hand_labels.jsonl"))
    }
    rows = []
    for row in read_jsonl(Path(results)):
        label = labels.pop(hashlib.sha256((row["answer"] or "").encode()).hexdigest(), None)
        if label:
            rows.append(
                {
                    "behavior_id": row["id"],
                    "behavior": row["behaviour"],
                    "context": row["context"],
                    "completion": row["answer"],
                    "harmbench_label": int(label["harmful"]),
                    "hand": True,
                }
            )
    print(f"{len(rows)} answers labelled by reading found, {len(labels)} labels without their answer")
    return rows


def train(rows: list[dict]) -> dict[str, torch.Tensor]:
    draw = random.Random(1)
    items = [
        (row["behavior"], row["completion"], float(row["harmbench_label"]), HAND if row["hand"] else 1.0)
        for row in rows
    ]
    for row in rows:  # answers of small budgets are cut short
        words = row["completion"].split()
        for length in (40, 90):
            if len(words) > 1.5 * length:
                items.append((row["behavior"], " ".join(words[:length]), float(row["harmbench_label"]), 0.5))
    harmful = [row for row in rows if row["harmbench_label"]]
    for row in harmful:
        words = row["completion"].split()
        draw.shuffle(words)
        other = draw.choice([one for one in rows if one["behavior_id"] != row["behavior_id"]])
        items.append((row["behavior"], " ".join(words), 0.0, 0.3))
        items.append((other["behavior"], row["completion"], 0.0, 0.3))
    inputs = torch.stack([local.features(behaviour, text) for behaviour, text, _, _ in items])
    labels = torch.tensor([label for _, _, label, _ in items])
    share = torch.tensor([weight for *_, weight in items])
    weight = torch.zeros(inputs.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weight + bias, labels, share)
        loss = loss + 5e-4 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return {"weight": weight.detach(), "bias": bias.detach()}


def auc(truth: list[int], scores: list[float]) -> float:
    """Probability that a positive scores above a negative, ties counted half."""
    ones = [score for label, score in zip(truth, scores, strict=True) if label]
    zeros = [score for label, score in zip(truth, scores, strict=True) if not label]
    return sum((one > zero) + 0.5 * (one == zero) for one in ones for zero in zeros) / (
        len(ones) * len(zeros)
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--write" in sys.argv)
