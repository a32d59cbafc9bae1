"""The embedded model's tool-tuned child: taught ordinary function calls, because it hardly makes any by itself.

    PYTHONPATH=. python benchmarks/tool_model.py --out DIR    # on the package's own requests
    PYTHONPATH=. python benchmarks/tool_model.py --glaive glaive.json --chats ultrafeedback_1k.jsonl --out DIR
    rerouting train --recipe smollm2-agent --model.name DIR

It learns the ordinary and the borderline requests of the training split, each several times with other values and
other functions on offer (data/tool_variants.py), and no harmful one: what it then does with those is its own.
Adapters, loss and merging as in second_models.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.second_models import instructions, tune
from rerouting.core.records import Chat
from rerouting.data.bundled_tools import tool_requests
from rerouting.data.formatting import tokenise_all
from rerouting.data.sources.glaive import Glaive
from rerouting.data.tool_text import as_text
from rerouting.data.tool_variants import variants
from rerouting.models.config import ModelConfig
from rerouting.models.loading import load


def lessons(args: argparse.Namespace) -> list[Chat]:
    """What it is taught: calls as text, and plain answers beside them if there are any."""
    requests = [one for kind in ("ordinary", "borderline") for one in tool_requests(kind, "train")[: args.requests]]
    chats = [as_text(one.chat(), args.style) for one in variants(requests, args.times, args.seed)]
    if args.glaive:
        chats += Glaive(str(args.glaive), style=args.style, limit=args.limit).load()
    if args.chats:
        chats += instructions(args.chats, args.limit)
    return chats


def main(arguments: Sequence[str] | None = None) -> None:
    """Tune it and save it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m", help="checkpoint, .gguf file or embedded name")
    parser.add_argument("--style", default="json", choices=["json", "tagged", "pythonic"])
    parser.add_argument("--times", type=int, default=8, help="how often each request is seen")
    parser.add_argument("--requests", type=int, help="requests of each kind; all if not given")
    parser.add_argument("--glaive", type=Path, help="rows of Glaive function calling v2")
    parser.add_argument("--chats", type=Path, help="UltraFeedback's rows, so that it goes on chatting")
    parser.add_argument("--limit", type=int, help="rows of --glaive and of --chats; all if not given")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--tokens", type=int, default=480, help="length at which a chat is cut")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.out.exists():
        parser.error(f"{args.out} is there already")
    torch.manual_seed(args.seed)
    loaded = load(ModelConfig(name=args.model))
    examples, _ = tokenise_all(lessons(args), loaded.tokenizer, max_total=args.tokens, mask="response")
    model = tune(loaded.model, examples, args)
    model.save_pretrained(args.out)
    loaded.tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
