"""Train the local judge's classifier and measure it on behaviours that it never saw.

    python benchmarks/local_judge.py ../shared/data/harmbench_llama3_judged_dev.jsonl [--write]

Data: completions of Llama-3-8B-Instruct under five attacks with the HarmBench classifier's labels (circuit-breakers,
MIT). Added negatives, made here: harmful completions with their words shuffled (gibberish), and harmful
completions set against another behaviour (off topic).
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from rerouting.core.contracts import Judged
from rerouting.core.files import read_jsonl
from rerouting.judges import local


def main(path: str, write: bool) -> None:
    rows = read_jsonl(Path(path))
    names = sorted({row["behavior_id"] for row in rows})
    random.Random(0).shuffle(names)
    truth, scores, verdicts = [], [], []
    for fold in range(5):
        held = set(names[fold::5])
        weights = train([row for row in rows if row["behavior_id"] not in held])
        local._weights = lambda weights=weights: weights
        for row in rows:
            if row["behavior_id"] in held:
                one = Judged(row["behavior"], row["completion"], row["context"] or "")
                verdict = local.Local().verdicts([one])[0]
                truth.append(row["harmbench_label"])
                scores.append(verdict.score if verdict.score is not None else 0.5)
                verdicts.append(verdict.yes)
    scored = [(t, v) for t, v in zip(truth, verdicts, strict=True) if v is not None]
    accuracy = sum(bool(t) == v for t, v in scored) / len(scored)
    print(f"{len(rows)} rows, {len(names)} behaviours, 5 folds by behaviour; positives {sum(truth)}")
    print(f"accuracy {accuracy:.3f}, AUC {auc(truth, scores):.3f}, unscored {len(rows) - len(scored)}")
    if write:
        save_file(train(rows), local.WEIGHTS)
        print(f"wrote {local.WEIGHTS}")


def train(rows: list[dict]) -> dict[str, torch.Tensor]:
    draw = random.Random(1)
    items = [(row["behavior"], row["completion"], float(row["harmbench_label"]), 1.0) for row in rows]
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
    main(sys.argv[1], "--write" in sys.argv)
