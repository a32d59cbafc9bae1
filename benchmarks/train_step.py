"""One training step three ways, side by side in one process, on the same examples, in turn.

    python benchmarks/train_step.py [--data authors|quickstart|worst] [--batch 2] [--repeats 3] [--ablate] [--json]
    python benchmarks/train_step.py --shape llama-3-8b --device cuda --batch 16     (random weights; mistral-7b too)
    python benchmarks/train_step.py --sweep [--out runs/sweep]                      (seconds against real tokens)

- "authors": what the authors' code does (github.com/GraySwanAI/circuit-breakers, as far as it is known to us), on
  today's transformers and PEFT: circuit-breaker prompts padded on the left to 512, their responses on the right to 512,
  retain text on the left to 1,024; the model cut to the blocks that have adapters; whole forward passes with LM head
  and `output_hidden_states`; reference with the adapters disabled; one backward pass over the sum of both losses, with
  recomputation; bfloat16 autocast on bfloat16 weights.
- "no head": the same without the LM head, nothing else changed.
- "no head, longest" (--longest): besides, padded to the longest of the batch only.
- "ours": the package's step (`ours_step`, the one function that knows its interface), and with --ablate the same with
  each change switched off.

The first three are written on their own (step_ways.py) and share the examples, the frozen weights and LoRA's options
with the package, no code. All of them clip at 1 and take an AdamW step. Nothing is timed before the gate has passed: in
float32, without dropout and with non-zero B, every way must give the losses of "authors" to 1e-5 and each adapter's
gradient to 1e-4 (relative). With --shape the gate runs on a small model of the same family.

Work is counted as the least a step needs (training/planning.py): 2·P·N for each of three passes (reference, adapted,
input gradients) over N real tokens and the P weights of the blocks that a loss reaches, besides LoRA and causal
attention. Its rate is compared with that of one large matrix product. Memory is what a step takes beyond the loaded
model, adapters and optimiser: on a GPU the allocator's peak, on a CPU the process's, each way in a process of its own.
"With weights" adds what the way keeps of the model: the authors' model is cut, ours is whole. The length mix of
--data authors is derived, not measured: see `step_inputs.authors_lengths`.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a file
    sys.path.insert(0, str(ROOT))

from benchmarks.step_inputs import SHAPES, drawn, histogram, loaded, loaded_for_gate  # noqa: E402
from benchmarks.step_ways import (  # noqa: E402
    ABLATIONS,
    AUTHORS,
    LONGEST,
    NO_HEAD,
    OURS,
    Examples,
    Setting,
    Way,
    gate,
    make,
    random_example,
)
from rerouting.core.manifest import Stages, environment  # noqa: E402
from rerouting.models.config import LoraConfig  # noqa: E402
from rerouting.models.shape import shape_of  # noqa: E402
from rerouting.training.planning import Stream, step_flops  # noqa: E402

MIB = 2**20


def minimum_flop(base: Any, setting: Setting, examples: Examples) -> float:
    """The least that one step computes; see the module's docstring."""
    streams = []
    for blocks, part in ((max(setting.targets), examples.harmful), (setting.blocks, examples.retain)):
        lengths = [len(one.ids) for one in part]
        square = fmean(length**2 for length in lengths)
        streams.append(Stream(len(part), blocks, 0, fmean(lengths), square, max(lengths)))
    return step_flops(shape_of(base), streams, setting.lora.rank).total


def matrix_rate(base: Any, clock: str, repeats: int = 5) -> float:
    """FLOP a second of one large matrix product in the model's number format, the best of a few."""
    weight = base.model.layers[0].mlp.up_proj.weight
    rows = 8192 if weight.is_cuda else 1024
    x = torch.randn(rows, weight.shape[1], device=weight.device).to(weight.dtype)
    best = math.inf
    for _ in range(repeats):
        wall, cpu, _ = clocked(lambda: x @ weight.t(), weight.device)
        best = min(best, cpu if clock == "cpu" else wall)
    return 2 * rows * weight.numel() / best


def clocked(call: Callable[[], Any], device: torch.device) -> tuple[float, float, Any]:
    """Seconds on the wall and of the processor (all threads), and what the call gives."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wait()
    return time.perf_counter() - wall, time.process_time() - cpu, result


@dataclass
class Samples:
    """What was measured of one way, a value a step."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)


def measured(ways: dict[str, Way], examples: Sequence[Examples], device: torch.device) -> dict[str, Samples]:
    """Every way on the same examples, in turn; each repeat begins with the next one."""
    found = {name: Samples() for name in ways}
    for way in ways.values() if device.type == "cuda" else ():  # the allocator's and the kernels' first time
        way.step(examples[0], 0)
    order = list(ways)
    for at, batch in enumerate(examples):
        turn = at % len(order)
        for name in order[turn:] + order[:turn]:
            sample, before = found[name], 0
            gc.collect()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
            wall, cpu, losses = clocked(partial(ways[name].step, batch, at + 1), device)
            sample.wall.append(wall)
            sample.cpu.append(cpu)
            sample.losses.append(losses)
            if device.type == "cuda":
                sample.peak.append((torch.cuda.max_memory_allocated(device) - before) / MIB)
            print(f"  step {at + 1}, {name}: {wall:.2f} s ({cpu:.2f} CPU s)", flush=True)
    return found


def weights_mib(way: Way) -> float:
    """Size of all tensors of a way's model."""
    tensors = {id(item): item for item in itertools.chain(way.model.parameters(), way.model.buffers())}
    return sum(item.numel() * item.element_size() for item in tensors.values()) / MIB


def warm_up(base: Any, setting: Setting, name: str) -> None:
    """A step of that kind on a few tokens, after which libraries and weights are in memory."""
    draw, few = random.Random(0), (8, 8, 16)
    batch = Examples([random_example(draw, 64, 4, 4)], [random_example(draw, 64, 4, 4)])
    make(base, replace(setting, pad=few), name).step(batch, 0)


def own_peak(base: Any, setting: Setting, examples: Examples, name: str) -> float:
    """MiB that a step takes in this process beyond what it held before."""
    way, stages = make(base, setting, name), Stages()
    warm_up(base, setting, name)
    for item in way.adapters().values():  # AdamW's moments; nothing moves
        item.grad = torch.zeros_like(item)
    way.optimizer.step()
    way.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    with stages.stage("before"):
        pass
    with stages.stage("step"):
        way.step(examples, 1)
    peaks = stages.as_dict()
    return peaks["step"]["peak_memory_mib"] - peaks["before"]["peak_memory_mib"]


def peak_elsewhere(argv: Sequence[str], name: str) -> float:
    """`own_peak` in a process of its own, with the same options."""
    command = [sys.executable, str(ROOT / "benchmarks/train_step.py"), *argv, "--peak-of", name]
    # every tensor a mapping of its own, given back at once: the peak is then of what lives, not of what malloc keeps
    given = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=given)
    if done.returncode:
        sys.exit(f"the memory of {name} could not be measured:\n{done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", choices=("authors", "quickstart", "worst"), default="authors")
    add("--run", type=Path, default=Path("runs/quickstart/streams"), help="streams of --data quickstart")
    add("--drop", type=float, default=0.5, help="share of emptied requests in --data authors (Mistral: 0)")
    add("--pad", type=int, nargs=3, default=(512, 512, 1024), help="padded prompt, response, retain text")
    add("--batch", type=int, default=2, help="sequences of each stream in a step (the paper: 16)")
    add("--micro-batch", type=int, help="ours: sequences in one forward pass (CPU: half of the batch, at most 8; CUDA: all)")
    add("--repeats", type=int, default=3)
    add("--threads", type=int, default=0, help="0: torch's choice")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu on a busy machine, with one thread")
    add("--model", default="smollm2-135m")
    add("--shape", choices=SHAPES, help="a model with random weights instead")
    add("--layers", type=int, help="its blocks, where fewer are wanted")
    add("--hidden", type=int, help="its width, where less is wanted")
    add("--targets", type=int, nargs="+", default=(10, 20), help="layers that are rerouted")
    add("--device", default="auto")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    add("--attention", choices=("sdpa", "eager"), default="sdpa", help="of the padded ways")
    add("--dropout", type=float, default=0.05, help="LoRA's")
    add("--longest", action="store_true", help="time the padded step also with padding to the longest only")
    add("--ablate", action="store_true", help="time ours also with each change switched off")
    add("--no-memory", action="store_true", help="CPU: do not start processes that measure memory")
    add("--gate-only", action="store_true")
    add("--sweep", action="store_true", help="seconds over batch and length, into --out")
    add("--out", type=Path, default=Path("runs/train_step_sweep"))
    add("--seed", type=int, default=0)
    add("--json", action="store_true", help="print one JSON object as the last line")
    add("--peak-of", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def report(
    args: argparse.Namespace,
    base: Any,
    setting: Setting,
    ways: dict[str, Way],
    samples: dict[str, Samples],
    examples: Sequence[Examples],
) -> dict[str, Any]:
    """Print the table; give what --json shows."""
    seconds = {name: one.cpu if args.clock == "cpu" else one.wall for name, one in samples.items()}
    flop = [minimum_flop(base, setting, batch) for batch in examples]
    rate = matrix_rate(base, args.clock)
    found: dict[str, Any] = {}
    for name, one in samples.items():
        own, peak = seconds[name], max(one.peak) if one.peak else None
        weights = weights_mib(ways[name])
        found[name] = {
            "seconds": {"median": median(own), "min": min(own), "max": max(own)},
            "wall_seconds": one.wall,
            "cpu_seconds": one.cpu,
            "tokens_per_second": median(batch.tokens / s for batch, s in zip(examples, own, strict=True)),
            "share_of_matrix_rate": median(work / s / rate for work, s in zip(flop, own, strict=True)),
            "ours_times_faster": median(a / b for a, b in zip(own, seconds[OURS], strict=True)),
            "ours_times_steps_a_second": sum(own) / sum(seconds[OURS]),
            "peak_mib": peak,
            "peak_with_weights_mib": None if peak is None else peak + weights,
            "seconds_150_steps": 150 * median(own),
            "losses": one.losses,
        }
    tokens = [batch.tokens for batch in examples]
    streams = {"harmful": [len(one.ids) for batch in examples for one in batch.harmful],
               "retain": [len(one.ids) for batch in examples for one in batch.retain]}  # fmt: skip
    for name, lengths in streams.items():
        print(f"{name} sequences by real tokens (mean {sum(lengths) / len(lengths):.0f}):")
        print("\n".join(histogram(lengths, sum(setting.pad[:2]) if name == "harmful" else setting.pad[2])))
    print(
        f"{min(tokens)} to {max(tokens)} real tokens a step, at least {median(flop) / 1e12:.3f} TFLOP; ",
        end="",
    )
    print(f"one matrix product: {rate / 1e12:.3f} TFLOP/s ({args.clock} clock)")
    columns = "{:34} {:>9} {:>17} {:>9} {:>7} {:>7} {:>10} {:>12}"
    print(columns.format("", "seconds", "min – max", "tokens/s", "rate", "ours ×", "peak MiB", "150 steps"))
    for name, one in found.items():
        spread = f"{one['seconds']['min']:.2f} – {one['seconds']['max']:.2f}"
        peak = "–" if one["peak_mib"] is None else f"{one['peak_mib']:.0f}"
        cells = (f"{one['seconds']['median']:.2f}", spread, f"{one['tokens_per_second']:.0f}",
                 f"{one['share_of_matrix_rate']:.0%}", f"{one['ours_times_faster']:.2f}", peak,
                 f"{one['seconds_150_steps']:.0f} s")  # fmt: skip
        print(columns.format(name, *cells))
    totals = (f"{name} {one['ours_times_steps_a_second']:.2f}" for name, one in found.items() if name != OURS)
    print(f"steps of different lengths taken together, ours makes so many times as many a second: {', '.join(totals)}")
    return {
        "speedup_vs_authors": found[AUTHORS]["ours_times_faster"],
        "speedup_vs_no_head": found[NO_HEAD]["ours_times_faster"],
        "steps_a_second_vs_authors": found[AUTHORS]["ours_times_steps_a_second"],
        "steps_a_second_vs_no_head": found[NO_HEAD]["ours_times_steps_a_second"],
        "peak_memory_ratio": _ratio(found, "peak_mib"),
        "peak_memory_ratio_with_weights": _ratio(found, "peak_with_weights_mib"),
        "seconds_150_steps": found[OURS]["seconds_150_steps"],
        "real_tokens": tokens,
        "minimum_tflop": median(flop) / 1e12,
        "matrix_tflop_per_second": rate / 1e12,
        "lengths": streams,
        "ways": found,
    }


def _ratio(found: dict[str, Any], key: str) -> float | None:
    """Ours divided by the authors'."""
    return found[OURS][key] / found[AUTHORS][key] if found[OURS][key] and found[AUTHORS][key] else None


def sweep(args: argparse.Namespace, base: Any, setting: Setting, vocabulary: int) -> dict[str, Any]:
    """Ours and "authors" over batch and length, every sequence equally long; a line through ours, and a figure."""
    device, draw = next(base.parameters()).device, random.Random(args.seed)
    ways = {name: make(base, setting, name) for name in (AUTHORS, OURS)}
    batches = sorted({max(1, args.batch // 2), args.batch})
    lengths = [setting.pad[2] * part // 8 for part in (1, 2, 4, 6, 8)]
    for name in ways:
        warm_up(base, setting, name)
    rows = []
    for size, length in itertools.product(batches, lengths):
        halves = (length // 2, length - length // 2)
        batch = Examples(
            *([random_example(draw, vocabulary, *halves) for _ in range(size)] for _ in range(2))
        )
        ends = length in (lengths[0], lengths[-1])  # to the padded way length makes no difference
        found = measured(ways if ends else {OURS: ways[OURS]}, [batch] * args.repeats, device)
        times = {name: median(one.cpu if args.clock == "cpu" else one.wall) for name, one in found.items()}
        rows.append({"batch": size, "length": length, "tokens": batch.tokens} | times)
    tokens = torch.tensor([[1.0, row["tokens"]] for row in rows], dtype=torch.float64)
    own = torch.tensor([row[OURS] for row in rows], dtype=torch.float64)
    line = torch.linalg.lstsq(tokens, own[:, None]).solution[:, 0]
    left = float(((own - tokens @ line) ** 2).sum() / ((own - own.mean()) ** 2).sum())
    result = {"rows": rows, "seconds_fixed": float(line[0]), "seconds_per_1000_tokens": 1000 * float(line[1]),
              "r_squared": 1 - left}  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "sweep.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"ours: {line[0]:.2f} s + {1000 * line[1]:.3f} s a thousand real tokens, R² {1 - left:.4f}")
    print(f"{args.out / 'sweep.json'}{_figure(rows, args.out / 'sweep.png')}")
    return result


def _figure(rows: Sequence[dict[str, Any]], path: Path) -> str:
    """Draw seconds over real tokens, where matplotlib is at hand."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return " (no figure: matplotlib is not installed)"
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, mark in ((AUTHORS, "s"), (OURS, "o")):
        for size in sorted({row["batch"] for row in rows}):
            own = [row for row in rows if row["batch"] == size and name in row]
            axes.plot([row["tokens"] for row in own], [row[name] for row in own], mark + "-",
                      label=f"{name}, {size} + {size} sequences")  # fmt: skip
    axes.set(xlabel="real tokens in a step", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=150)
    return f", {path}"


def _plain(args: argparse.Namespace) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}


def setting_of(args: argparse.Namespace, base: Any) -> Setting:
    """What all ways share, of the model that is timed."""
    targets = tuple(args.targets)
    if max(targets) >= len(base.model.layers):
        sys.exit(
            f"targets {list(targets)} need {max(targets) + 1} blocks: the model has {len(base.model.layers)}"
        )
    lora = LoraConfig(dropout=args.dropout, init_b_std=0.002)
    cuda = next(base.parameters()).is_cuda
    micro = args.micro_batch or (args.batch if cuda else min(8, max(1, args.batch // 2)))
    return Setting(targets, max(targets) + 1, tuple(args.pad), lora, micro, args.attention)


def main(argv: Sequence[str] | None = None) -> None:
    """Gate, time, count, print."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parsed(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    base, tokenizer = loaded(args)
    setting, vocabulary = setting_of(args, base), base.get_input_embeddings().num_embeddings
    examples = drawn(args, setting, vocabulary, tokenizer)
    if args.peak_of:
        print(own_peak(base, setting, examples[0], args.peak_of))
        return
    names = [AUTHORS, NO_HEAD, *([LONGEST] if args.longest else []), OURS]
    whole = setting.micro_batch >= args.batch
    changes = [name for name in ABLATIONS if not (whole and name == "micro_batches")]
    names += [f"ours without {change}" for change in changes] if args.ablate else []
    parity = gate(*loaded_for_gate(args, setting), names)
    for name, one in parity.items():
        print(
            f"parity of {name}: losses to {one['loss']:.1e}, gradients to {one['gradient']:.1e}", flush=True
        )
    if args.gate_only:
        return
    if args.sweep:
        result = sweep(args, base, setting, vocabulary)
    else:
        ways = {name: make(base, setting, name) for name in names}
        for name, way in ways.items():
            way.start_as(ways[OURS])
            warm_up(base, setting, name)
        samples = measured(ways, examples, next(base.parameters()).device)
        for name in [] if args.no_memory else names:
            samples[name].peak = samples[name].peak or [peak_elsewhere(argv, name)]
        result = report(args, base, setting, ways, samples, examples)
    if args.json:
        print(json.dumps(result | {"parity": parity, "options": _plain(args), "environment": environment()}))


if __name__ == "__main__":
    main()
