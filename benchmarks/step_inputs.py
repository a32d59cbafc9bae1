"""Models and examples for train_step.py: a run's streams, the authors' mix of lengths, or every sequence full.

Only lengths matter for time and memory, so ids are drawn at random where there are no streams.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.step_ways import Examples, Setting, random_example
from rerouting.data.formatting import Example, render_prompt
from rerouting.data.sources.bundled import Bundled
from rerouting.models.config import ModelConfig
from rerouting.models.hardware import pick_attention, pick_device, pick_dtype
from rerouting.models.loading import load
from rerouting.models.shape import PUBLISHED
from rerouting.pipeline.streams import load_streams


def authors_lengths(draw: random.Random, drop: float) -> tuple[tuple[int, int], int]:
    """Prompt and response of a circuit-breaker item, and length of a retain item, in tokens.

    Derived from the make-up of the authors' sets (25,501 retain items, 4,994 of the other), not from their files: ten
    tokens of template; short requests; completions of a few hundred tokens, cut at 512; of the retain set 39 %
    UltraChat conversations, most of them longer than the 1,024 at which they are cut, 45 % XSTest answers of GPT-4,
    16 % refusals. With probability `drop` (their Llama-3 run: 0.5, Mistral: 0) the request is emptied, and of UltraChat
    only the first answer kept. In the mean 16 + 16 sequences have 11,200 tokens with drop = 0.5, and 13,200 with 0.
    """

    def about(middle: float, spread: float) -> int:
        return max(1, round(draw.lognormvariate(math.log(middle), spread)))

    prompt = 10 + (0 if draw.random() < drop else about(35, 0.4))
    harmful = (min(prompt, 512), min(about(260, 0.5), 512))
    kind, dropped = draw.choices(("ultrachat", "xstest", "refusal"), (39, 45, 16))[0], draw.random() < drop
    if kind == "ultrachat":
        retain = 10 + about(350, 0.5) if dropped else about(1150, 0.4)
    else:
        retain = (
            10
            + (0 if dropped else about(14, 0.4))
            + (about(230, 0.4) if kind == "xstest" else about(40, 0.6))
        )
    return harmful, min(retain, 1024)


def drawn(args: argparse.Namespace, setting: Setting, vocabulary: int, tokenizer: Any) -> list[Examples]:
    """Examples of each repeat; every token counts for the loss, as in the paper."""
    draw, size = random.Random(args.seed), args.batch
    if args.data == "quickstart":
        harmful, retain = _quickstart(args.run, vocabulary, tokenizer, setting, draw)
        return [Examples(draw.sample(harmful, size), draw.sample(retain, size)) for _ in range(args.repeats)]
    out = []
    for _ in range(args.repeats):
        lengths = [_scaled(args.data, draw, args.drop, setting.pad) for _ in range(size)]
        out.append(
            Examples(
                [random_example(draw, vocabulary, *harmful) for harmful, _ in lengths],
                [random_example(draw, vocabulary, *retain) for _, retain in lengths],
            )
        )
    return out


def _scaled(
    data: str, draw: random.Random, drop: float, pad: tuple[int, int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Prompt and response lengths of both streams, in proportion to the padded lengths."""
    if data == "worst":
        return (pad[0], pad[1]), (pad[2] // 2, pad[2] - pad[2] // 2)
    (prompt, response), total = authors_lengths(draw, drop)
    scale = [size / full for size, full in zip(pad, (512, 512, 1024), strict=True)]
    total = max(2, round(total * scale[2]))
    own = (max(1, round(prompt * scale[0])), max(1, round(response * scale[1])))
    return own, (total // 2, total - total // 2)


def _quickstart(
    run: Path, vocabulary: int, tokenizer: Any, setting: Setting, draw: random.Random
) -> tuple[list[Example], list[Example]]:
    """The streams of a run; without one the bundled prompts, each with 56 random tokens in place of its completion."""
    if (run / "circuit_breaker.jsonl").is_file():
        streams = load_streams(run)
        found = [list(streams.circuit_breaker), list(streams.retain)]
    elif tokenizer is not None:
        print(f"no streams in {run}: bundled prompts, with random completions")
        found = [
            [
                _answered(render_prompt(chat, tokenizer), draw, vocabulary)
                for chat in Bundled(kind, "train").load()
            ]
            for kind in ("harmful", "benign")
        ]
    else:
        sys.exit(f"there are no streams in {run}: give the folder with --run, or a --model with a tokenizer")
    fitting: list[list[Example]] = []
    for part, (prompt, response) in zip(found, (setting.pad[:2], (setting.pad[2],) * 2), strict=True):
        fitting.append(
            [
                Example(tuple(one % vocabulary for one in item.ids), item.n_prompt, (True,) * len(item.ids))
                for item in part
                if item.n_prompt <= prompt
                and len(item.ids) - item.n_prompt <= response
                and len(item.ids) <= setting.pad[2]
            ]
        )
    return fitting[0], fitting[1]


def _answered(prompt: list[int], draw: random.Random, vocabulary: int) -> Example:
    ids = (*prompt, *(draw.randrange(3, vocabulary) for _ in range(56)))
    return Example(ids, len(prompt), (True,) * len(ids))


def histogram(lengths: Sequence[int], top: int, rows: int = 8) -> list[str]:
    """Lengths as text, in `rows` equal ranges up to `top`."""
    width = math.ceil(top / rows)
    counts = [sum((length - 1) // width == row for length in lengths) for row in range(rows)]
    return [
        f"{row * width + 1:6d}–{(row + 1) * width:<5d} {'█' * math.ceil(40 * count / max(counts))} {count}"
        for row, count in enumerate(counts)
    ]


SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3-8b": PUBLISHED["llama-3-8b"],
    "mistral-7b": ("MistralConfig", PUBLISHED["mistral-7b"][1] | {"sliding_window": None}),  # v0.2 has none
    "smollm2-135m": ("LlamaConfig", {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                     "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
                     "tie_word_embeddings": True}),
    "tiny": ("LlamaConfig", {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128}),
}  # fmt: skip
"""Models that can be built with random weights: transformers' config class and its values."""


def shaped(name: str, device: torch.device, dtype: torch.dtype, **changes: int) -> Any:
    """A random model of that shape, its proportions kept where `hidden_size` is changed."""
    kind, options = SHAPES[name]
    options = options | changes
    if "hidden_size" in changes:
        old = SHAPES[name][1]
        head = old["hidden_size"] // old["num_attention_heads"]
        heads = max(1, changes["hidden_size"] // head)
        groups = old["num_attention_heads"] // old["num_key_value_heads"]
        options |= {
            "num_attention_heads": heads,
            "num_key_value_heads": heads // groups if heads % groups == 0 else heads,
            "intermediate_size": old["intermediate_size"] * changes["hidden_size"] // old["hidden_size"],
        }
    config = getattr(transformers, kind)(**options)
    torch.manual_seed(0)
    with device:
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=pick_attention("auto", device)
        )
    return model.requires_grad_(False).eval()


def loaded(args: argparse.Namespace) -> tuple[Any, Any]:
    """The model to time, and its tokenizer if it has one."""
    device = pick_device(args.device)
    if args.shape:
        changes = {"num_hidden_layers": args.layers, "hidden_size": args.hidden}
        given = {key: value for key, value in changes.items() if value}
        return shaped(args.shape, device, pick_dtype(args.dtype, device), **given), None
    found = load(ModelConfig(args.model, args.dtype, device=args.device))
    return found.model, found.tokenizer


def loaded_for_gate(args: argparse.Namespace, setting: Setting) -> tuple[Any, Setting]:
    """The same model in float32; of a shape, a small one."""
    device = pick_device(args.device)
    if not args.shape:
        return load(ModelConfig(args.model, "float32", device=args.device)).model, setting
    old = SHAPES[args.shape][1]
    groups = old["num_attention_heads"] // old["num_key_value_heads"]
    width = old["hidden_size"] // old["num_attention_heads"] * groups
    small = shaped(args.shape, device, torch.float32, hidden_size=width, num_hidden_layers=4, vocab_size=128)
    for item in small.parameters():  # the usual 0.02 makes every block nearly the identity
        if item.ndim > 1:
            item.normal_(0.0, 2 / math.sqrt(width))
    return small, replace(setting, targets=(1, 2), blocks=3)
