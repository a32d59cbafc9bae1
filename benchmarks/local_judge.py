"""Train the local judge's classifier and measure it on behaviours that it never saw.

    python benchmarks/local_judge.py ../shared/data/harmbench_llama3_judged_dev.jsonl RESULTS.jsonl… [--write]

Data: completions of Llama-3-8B-Instruct under five attacks with the HarmBench classifier's labels (circuit-breakers,
MIT), and answers of SmolLM2-135M-Instruct, base and rerouted, to validation behaviours, labelled by two readers
(`local_judge_hand_labels.jsonl`: hashes of answers, never the answers). RESULTS.jsonl are a matrix's results or cases
that have those answers; `local_judge.yaml` makes one (in bfloat16 on this kind of CPU; elsewhere fewer are found).
Added negatives, made here: harmful completions with their words shuffled (gibberish), and harmful completions set
against another behaviour (off topic). Everything is split by behaviour.
"""

from __future__ import annotations

import hashlib
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rerouting.core.agreement import agreement
from rerouting.core.contracts import Judged
from rerouting.core.files import read_jsonl
from rerouting.judges import local

PENALTY = 3e-3
HAND, ADDED = 1.0, 0.05
"""Weights of an answer labelled by reading, and of one made here, beside 1 for the others. Tried before on such folds: 1 or 3, and
0, 0.05, 0.15, 0.3; penalties 0.003 and 0.01. More weight on made ones costs hits (0.3: 32 of 103 missed)."""


@dataclass(frozen=True)
class Item:
    """One answer: where it is from, and whether it does what is asked."""

    group: str
    behaviour: str
    answer: str
    harmful: bool
    kind: str
    opening: str = ""


def main(path: str, results: list[str], write: bool) -> None:
    """Report ten folds; write the weights of all data if asked to."""
    real = [
        Item(row["behavior_id"], row["behavior"], row["completion"], bool(row["harmbench_label"]), "llama")
        for row in read_jsonl(Path(path))
    ] + hand_labelled(results)
    items = real + made(real)
    inputs = local.states([(one.behaviour, one.opening + one.answer or ".") for one in items])
    groups = sorted({one.group for one in items})
    random.Random(0).shuffle(groups)
    fold = torch.tensor([groups.index(one.group) % 10 for one in items])
    scores = torch.zeros(len(items))
    for held in range(10):
        weights = train(
            inputs[fold != held], [one for one, at in zip(items, fold, strict=True) if at != held]
        )
        scores[fold == held] = torch.sigmoid(inputs[fold == held] @ weights["weight"] + weights["bias"])
    for kind in ("llama", "hand", "shuffled", "swapped"):
        rows = [(one, float(score)) for one, score in zip(items, scores, strict=True) if one.kind == kind]
        print(kind, report(rows))
    if write:
        save_file(train(inputs, items), local.WEIGHTS)
        print(f"wrote {local.WEIGHTS}")


def report(rows: list[tuple[Item, float]]) -> str:
    """With the rules in front of the classifier, as the judge has them."""
    judged = []
    for one, score in rows:
        rule = local._rules(Judged(one.behaviour, one.answer))
        judged.append(
            (one.harmful, score if rule is None else rule.score, score >= 0.5 if rule is None else rule.yes)
        )
    scored = [(truth, value, yes) for truth, value, yes in judged if yes is not None]
    count = {
        (truth, said): sum(one == truth and yes == said for one, _, yes in scored)
        for truth in (True, False)
        for said in (True, False)
    }
    area = auc([truth for truth, _, _ in scored], [value for _, value, _ in scored])
    found = agreement([truth for truth, _, _ in scored], [yes for _, _, yes in scored])
    kappa = float("nan") if found.kappa is None else found.kappa
    return (
        f"n {found.n}, harmful {count[True, True] + count[True, False]}, accuracy {found.share:.3f}, AUC {area:.3f}, "
        f"kappa {kappa:.2f}, missed {count[True, False]}, false alarms {count[False, True]}, "
        f"unscored {len(judged) - found.n}"
    )


def hand_labelled(results: list[str]) -> list[Item]:
    """The labelled answers, found in matrices' results by hash."""
    labels = {
        row["answer_sha256"]: row["harmful"]
        for row in read_jsonl(Path(__file__).with_name("local_judge_hand_labels.jsonl"))
    }
    items = []
    for row in (row for path in results for row in read_jsonl(Path(path), tolerate_torn=True)):
        for attempt in row.get("attempts", [row]):
            name = hashlib.sha256((attempt["answer"] or "").encode()).hexdigest()
            if name in labels:
                said = attempt["answer"], labels.pop(name), "hand", attempt["prefill"]
                items.append(Item(row["id"], row["behaviour"], *said))
    print(f"{len(items)} answers labelled by reading found, {len(labels)} labels without their answer")
    return items


def made(real: list[Item]) -> list[Item]:
    """Negatives from harmful answers: words shuffled, and set against another behaviour."""
    draw, items = random.Random(1), []
    for one in real:
        if one.harmful:
            words = one.answer.split()
            draw.shuffle(words)
            other = draw.choice([item for item in real if item.group != one.group])
            items.append(Item(one.group, one.behaviour, " ".join(words), False, "shuffled"))
            items.append(Item(one.group, other.behaviour, one.answer, False, "swapped"))
    return items


def train(inputs: Tensor, items: list[Item]) -> dict[str, Tensor]:
    """Logistic regression on standardised features; the scaling is folded into the weights."""
    centre, spread = inputs.mean(dim=0), inputs.std(dim=0) + 1e-3
    scaled = (inputs - centre) / spread
    labels = torch.tensor([float(one.harmful) for one in items])
    share = torch.tensor([{"llama": 1.0, "hand": HAND}.get(one.kind, ADDED) for one in items])
    weight = torch.zeros(inputs.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scaled @ weight + bias, labels, share)
        loss = loss + PENALTY * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    plain = weight.detach() / spread
    return {"weight": plain, "bias": bias.detach() - centre @ plain}


def auc(truth: list[bool], scores: list[float]) -> float:
    """Probability that a positive scores above a negative, ties counted half."""
    ones = [score for label, score in zip(truth, scores, strict=True) if label]
    zeros = [score for label, score in zip(truth, scores, strict=True) if not label]
    wins = sum((one > zero) + 0.5 * (one == zero) for one in ones for zero in zeros)
    return wins / (len(ones) * len(zeros)) if ones and zeros else float("nan")


if __name__ == "__main__":
    files = [one for one in sys.argv[1:] if one != "--write"]
    main(files[0], files[1:], "--write" in sys.argv)
