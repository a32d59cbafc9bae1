"""GCG against a plain one: candidates a CPU second, and how far the target's loss falls in the same steps.

    python benchmarks/gcg.py [--steps 20] [--candidates 64] [--behaviours 4] [--batch 16] [--json]

The plain one is written here on its own, as the paper's algorithm reads: each candidate's whole prompt and target go
through the model again, in batches, with logits at every position ("plain"), or at the target's alone ("plain, few
logits"). All three run in turn on each behaviour, on the embedded model. Time is the processor's, of all threads: use one thread on a
busy machine.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median

import torch

from rerouting.attacks.gcg import Gcg, _loss, _Search, _Vocabulary
from rerouting.core.contracts import Resources
from rerouting.data.sources.bundled import Bundled
from rerouting.models.loading import load_once
from rerouting.targets.slots import around_slot
from rerouting.targets.target import Target


class Plain:
    """Full forward passes; shares nothing with the package but where the suffix goes and the filter."""

    def __init__(self, target: Target, chat, few_logits: bool) -> None:
        self.model, self.few = target.model, few_logits
        self.before, self.after = around_slot(chat, target.tokenizer)
        self.wanted = target.tokenizer(chat.target, add_special_tokens=False)["input_ids"]

    def losses(self, suffixes: torch.Tensor, batch: int) -> torch.Tensor:
        found = []
        for start in range(0, len(suffixes), batch):
            rows = [
                [*self.before, *row, *self.after, *self.wanted]
                for row in suffixes[start : start + batch].tolist()
            ]
            with torch.no_grad():
                found.append(self.loss(input_ids=torch.tensor(rows)))
        return torch.cat(found)

    def loss(self, **inputs) -> torch.Tensor:
        count = len(self.wanted)
        logits = self.model(**inputs, use_cache=False, logits_to_keep=count + 1 if self.few else 0).logits
        own = logits[:, -count - 1 : -1].float()
        labels = torch.tensor(self.wanted).expand(len(own), -1)
        return torch.nn.functional.cross_entropy(own.transpose(1, 2), labels, reduction="none").mean(dim=1)

    def gradient(self, suffix: torch.Tensor) -> torch.Tensor:
        table = self.model.get_input_embeddings()
        hot = (
            torch.nn.functional.one_hot(suffix, len(table.weight)).to(table.weight.dtype).requires_grad_(True)
        )
        parts = [
            table(torch.tensor(self.before)),
            hot @ table.weight,
            table(torch.tensor([*self.after, *self.wanted])),
        ]
        loss = self.loss(inputs_embeds=torch.cat(parts)[None]).sum()
        return torch.autograd.grad(loss, hot)[0].float()


def plain_search(target: Target, chat, options: Gcg, few: bool, seed: int) -> tuple[float, float, int, float]:
    """First loss, best loss, candidates and seconds spent on them."""
    search, vocabulary = Plain(target, chat, few), _Vocabulary(target, options.ascii_only)
    draw = torch.Generator().manual_seed(seed)
    (mark,) = target.tokenizer(" x", add_special_tokens=False)["input_ids"][-1:]
    current = torch.full((options.length,), mark)
    first = best = float(search.losses(current[None], 1))
    tried, seconds = 0, 0.0
    for _ in range(options.steps):
        drawn = vocabulary.draw(current, search.gradient(current), options.candidates, options.top_k, draw)
        begun = time.process_time()
        found = search.losses(drawn, options.batch)
        seconds += time.process_time() - begun
        tried += len(drawn)
        if float(found.min()) < best:
            best, current = float(found.min()), drawn[int(found.argmin())]
    return first, best, tried, seconds


def rate_of_ours(target: Target, chat, options: Gcg) -> tuple[int, float]:
    """Candidates and seconds of the evaluation alone, on candidates of one step, ten times."""
    search, vocabulary = _Search(options, target, chat), _Vocabulary(target, options.ascii_only)
    (mark,) = target.tokenizer(" x", add_special_tokens=False)["input_ids"][-1:]
    suffix = torch.full((options.length,), mark)
    draw = torch.Generator().manual_seed(1)
    drawn = vocabulary.draw(suffix, search.gradient(suffix), options.candidates, options.top_k, draw)
    begun = time.process_time()
    for _ in range(10):
        _loss([search], drawn)
    return 10 * len(drawn), time.process_time() - begun


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        ("steps", 20),
        ("candidates", 64),
        ("behaviours", 4),
        ("batch", 16),
        ("threads", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    target = Target(load_once("smollm2-135m"), 16)
    options = Gcg(steps=args.steps, candidates=args.candidates, batch=args.batch, stop_below=0.0)
    resources = Resources(0, None, None)
    speed, fall = (
        {"ours": [], "plain": [], "plain, few logits": []},
        {"ours": [], "plain": [], "plain, few logits": []},
    )
    for chat in Bundled("harmful", "validation", args.behaviours).load():
        for name, few in (("plain", False), ("plain, few logits", True)):
            first, best, tried, seconds = plain_search(target, chat, options, few, seed=0)
            speed[name].append(tried / seconds)
            fall[name].append(first / best)
        tried, seconds = rate_of_ours(target, chat, options)
        speed["ours"].append(tried / seconds)
        trace = options.run(target, [chat], resources)[0].trace
        fall["ours"].append(trace["first_loss"] / trace["best_loss"])
        print(
            chat.id,
            {name: (round(speed[name][-1], 1), round(fall[name][-1], 2)) for name in speed},
            flush=True,
        )
    found = {}
    for name in speed:
        ratio = median(a / b for a, b in zip(speed["ours"], speed[name], strict=True))
        found[name] = {
            "candidates_per_cpu_s": median(speed[name]),
            "ours_over_it": ratio,
            "loss_factor": median(fall[name]),
        }
        print(f"{name}: {median(speed[name]):.1f} candidates a CPU second (ours {ratio:.2f} times), ", end="")
        print(f"loss falls by a factor of {median(fall[name]):.2f} (medians)")
    if args.json:
        print(json.dumps(found | {"options": vars(args)}))


if __name__ == "__main__":
    main()
