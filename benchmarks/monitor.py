"""What the monitor halts, and what it costs a token.

    python benchmarks/monitor.py runs/quickstart [--kind linear] [--model base] [--limit 60] [--repeats 3] [--json]

Bundled test requests: harmful ones plain and after an affirmative opening, benign and borderline ones. Halted: share of
answers in which a token is flagged. Cost: processor seconds of generating the same answers with the monitor (its
threshold out of reach, so that nothing stops) over those without, in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

from rerouting.core.attempt import opening_of
from rerouting.core.stats import Rate
from rerouting.data.formatting import render_prompt
from rerouting.data.loading import spread
from rerouting.data.sources.bundled import Bundled
from rerouting.models.generation import generate
from rerouting.pipeline.pair import models_of
from rerouting.probes.monitor import Monitor, guarded
from rerouting.probes.saved import load_probe


def prompts(tokenizer, limit):
    """Token ids by set."""
    harmful = spread(Bundled("harmful", "test").load(), limit)
    found = {
        "direct": [render_prompt(chat, tokenizer) for chat in harmful],
        "prefill": [render_prompt(chat, tokenizer, opening_of(chat.target, ":\n\n")) for chat in harmful],
    }
    for kind in ("benign", "borderline"):
        found[kind] = [render_prompt(chat, tokenizer) for chat in spread(Bundled(kind, "test").load(), limit)]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--kind", default="linear")
    parser.add_argument("--model", default="base", choices=["base", "rerouted"])
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    loaded = models_of(args.run)[args.model == "rerouted"]
    probe = load_probe(args.run / "probes" / args.kind)
    sets = prompts(loaded.tokenizer, args.limit)
    halted = {}
    for name, own in sets.items():
        with Monitor(loaded.model, probe) as monitor:
            answers = guarded(monitor, loaded.tokenizer, own, max_new_tokens=args.new)
        rate = Rate(sum(one.flagged is not None for one in answers), len(answers))
        stops = sorted(one.flagged for one in answers if one.flagged is not None)
        halted[name] = {"rate": rate.value, "low": rate.low, "high": rate.high, "n": rate.n,
                        "median_token": stops[len(stops) // 2] if stops else None}  # fmt: skip
        sys.stdout.write(
            f"{name}: {rate.hits} of {rate.n} halted, median token {halted[name]['median_token']}\n"
        )
    seconds: dict[str, list[float]] = {"plain": [], "watched": []}
    for turn in range(2 * args.repeats):
        for name in sorted(seconds, reverse=bool(turn % 2)):  # neither always profits from the other's caches
            started = time.process_time()
            if name == "plain":
                generate(loaded.model, loaded.tokenizer, sets["benign"], max_new_tokens=args.new)
            else:
                with Monitor(loaded.model, probe.at(float("inf"))) as monitor:
                    guarded(monitor, loaded.tokenizer, sets["benign"], max_new_tokens=args.new)
            seconds[name].append(time.process_time() - started)
    ratios = [watched / plain for plain, watched in zip(*seconds.values(), strict=True)]
    sys.stdout.write(f"cost: {100 * (median(ratios) - 1):+.1f} % [{100 * (min(ratios) - 1):+.1f}, ")
    sys.stdout.write(f"{100 * (max(ratios) - 1):+.1f}] of generation's processor time\n")
    if args.json:
        sys.stdout.write(json.dumps({"halted": halted, "cost": ratios}) + "\n")


if __name__ == "__main__":
    main()
