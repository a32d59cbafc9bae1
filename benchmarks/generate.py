"""Sampling as the quickstart does it against a plain `generate` loop: new tokens a second, side by side and in turn.

    python benchmarks/generate.py [--prompts 128] [--new 56] [--batch 32] [--repeats 3] [--threads N] [--json]

The prompts are the bundled training prompts through the chat template, as on-policy sampling sends them. "plain" is what
one would write first: transformers' `generate` with its default attention, prompts in the given order, batches of a fixed
number, padded on the left to each batch's longest. "ours" is `models.generation.generate`: sorted by length, batched to
a token budget (several are tried), grouped attention, nucleus sampling from one stream a prompt. "plain, our attention"
tells the two apart. All sample at the same temperature and top-p, and count tokens up to the end of the answer alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median

import torch

from rerouting.core.records import Chat
from rerouting.data.formatting import render_prompt
from rerouting.data.sources.bundled import Bundled
from rerouting.models.config import ModelConfig
from rerouting.models.generation import _cut, end_tokens, generate
from rerouting.models.loading import load

SAMPLING = {"temperature": 0.7, "top_p": 0.95}


def plain(model, tokenizer, prompts: list[list[int]], new: int, batch: int) -> int:
    """New tokens of a loop over batches in the given order."""
    total, ends = 0, end_tokens(model)
    for start in range(0, len(prompts), batch):
        rows = prompts[start : start + batch]
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(rows):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device), max_new_tokens=new,
                do_sample=True, pad_token_id=tokenizer.pad_token_id, top_k=0, **SAMPLING,
            )  # fmt: skip
        for answer in out[:, width:].tolist():
            total += len(_cut(answer, ends))
    return total


def ours(model, tokenizer, prompts: list[list[int]], new: int, budget: int) -> int:
    """New tokens of the package's function."""
    answers = generate(
        model, tokenizer, prompts, max_new_tokens=new, do_sample=True, token_budget=budget, **SAMPLING
    )
    return sum(map(len, answers))


def prompts_of(tokenizer, count: int) -> list[list[int]]:
    """Bundled training prompts of all kinds, spread evenly."""
    kinds = ("harmful", "benign", "borderline")
    chats: list[Chat] = [chat for kind in kinds for chat in Bundled(kind, "train", count // 3 + 1).load()]
    return [render_prompt(chat, tokenizer) for chat in chats[:count]]


def main() -> None:
    """Time all ways in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--new", type=int, default=56)
    parser.add_argument("--batch", type=int, default=32, help="of the plain loop")
    parser.add_argument("--budgets", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    loaded = load(ModelConfig(name=given.model, device=given.device))
    model, tokenizer = loaded.model, loaded.tokenizer
    own = model.config._attn_implementation
    prompts = prompts_of(tokenizer, given.prompts)
    ways = {
        "plain": ("sdpa", plain, given.batch),
        "plain, our attention": (own, plain, given.batch),
        **{f"ours, budget {budget}": (own, ours, budget) for budget in given.budgets},
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(given.repeats + 1):  # the first round warms up
        for name, (attention, way, size) in ways.items():
            model.set_attn_implementation(attention)
            began = time.perf_counter()
            tokens = way(model, tokenizer, prompts[: 8 if repeat == 0 else None], given.new, size)
            if repeat:
                rates[name].append(tokens / (time.perf_counter() - began))
        sys.stderr.write(f"round {repeat} of {given.repeats}\n")
    base = median(rates["plain"])
    print(
        f"{len(prompts)} prompts, mean {sum(map(len, prompts)) / len(prompts):.0f} tokens, {given.new} new; {loaded.dtype}"
    )
    for name, found in rates.items():
        print(
            f"{name:24} {median(found):7.0f} tokens/s [{min(found):.0f}, {max(found):.0f}]  {median(found) / base:.2f}×"
        )
    if given.json:
        speedups = {name: median(found) / base for name, found in rates.items()}
        print(json.dumps({"tokens_per_second": {name: median(found) for name, found in rates.items()},
                          "speedup_vs_plain": speedups, "threads": torch.get_num_threads()}))  # fmt: skip


if __name__ == "__main__":
    main()
