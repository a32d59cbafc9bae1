"""What each part of the recipe is worth: variants of a recipe on the embedded model, several seeds, one table.

    python benchmarks/ablation.py --out runs/ablation --seeds 0,1,2 paper quickstart default
    python benchmarks/ablation.py --out runs/ablation --seeds 0 angle boundary bend orthogonal …

Trains and evaluates what is not there yet, by the command line as a user would, then prints a Markdown table of all
that is in the folder: means over seeds, with the range where there are several. The base's answers are shared, and
rows that differ in strength alone share a training. After prompts or code have changed, name a new folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from rerouting.core.config import load_config
from rerouting.core.recipes import recipe_path
from rerouting.training.config import RunConfig

HERE = Path(__file__).parent
QUICK = ["--recipe", "quickstart"]
ANGLE = ["--losses.reroute", '{"name": "angle", "options": {"target_degrees": 50.0}}']
AT_20 = ["--losses.target_depths", "null", "--losses.target_layers", "[20]"]
DEFAULT = ["--recipe", "default"]
RAMP = '{"reroute": 1.0, "retain_from": 14.0, "retain_to": 80.0}'


def instead(name: str, **options: Any) -> list[str]:
    """Another rerouting loss."""
    return ["--losses.reroute", json.dumps({"name": name, "options": options})]


def rounded(knee: float) -> list[str]:
    """The retain loss rounded off up to this relative distance."""
    return ["--losses.retain", json.dumps({"name": "smooth", "options": {"knee": knee}})]


def strength(share: float) -> list[str]:
    """That share of what is trained."""
    return ["--lora.strength", str(share)]


def retained(kind: str, weight: float = 1.0, **limit: int) -> dict[str, Any]:
    """Bundled training prompts of a kind, answered by the model itself."""
    options = {"kind": kind, "split": "train", **limit}
    return {"name": "bundled", "options": options, "weight": weight, "on_policy": True}


def retaining(*sources: dict[str, Any]) -> list[str]:
    """Another retain set."""
    return ["--data.retain", json.dumps(sources)]


SCHEDULE = "--losses.schedule.options"
ALONE = ["--data.contexts", "0", "--data.retain_contexts", "0"]
"""No request stands behind other texts."""
TOKENS = ["--losses.retain_mean", "tokens"]
PLAIN = [*ALONE, *TOKENS]
"""As before both came, from the evening to the night of 2026-11-29."""
END = [*PLAIN, *instead("to_place", place="end", within=10.0, length=0.5), *strength(1.0)]
"""To the mean state before the end of turn, where the blocks above the middle do not surely end; the whole adapter. Measured
before contexts and the mean over sequences came, so without them."""
FOUR_FIFTHS = [
    *("--losses.target_depths", "[0.8]", "--lora.first_depth", "0.4", "--training.learning_rate", "1e-3"),
    *(SCHEDULE, '{"reroute": 3.0, "retain_from": 14.0, "retain_to": 80.0}'),
    *("--data.mask", "response", "--data.retain_mask", "all"),
    *("--losses.retain", '{"name": "relative"}'),
    *END,
]
"""Where a tripped answer ends, at the price of borderline requests; a part of it costs less."""
BEFORE = [
    *("--training.batch_size", "8", "--training.retain_batch_size", "14", "--training.micro_batch", "14"),
    *("--training.steps", "150"),
]
"""The default until 2026-11-29: the same tokens in half as many steps."""
EQUAL = retaining(retained("benign"), retained("borderline"))
"""… and as many borderline requests as benign ones."""
VARIANTS: dict[str, list[str]] = {
    "paper": [*DEFAULT, "--config", str(HERE / "paper_settings.yaml")],
    "paper, relative distance": [
        *DEFAULT,
        "--config",
        str(HERE / "paper_settings.yaml"),
        "--losses.retain",
        '{"name": "relative"}',
    ],
    "quickstart": QUICK,
    "default": DEFAULT,
    "default, twice the weight": [*DEFAULT, "--losses.schedule.options.reroute", "8.0"],
    "default to the end": [*DEFAULT, *END],
    "default to the end, large batches": [*DEFAULT, *END, *BEFORE],
    "default to the end, strength 0.9": [*DEFAULT, *END, *strength(0.9)],
    "default until 2026-11-29": [*DEFAULT, *END, *BEFORE, *EQUAL],
    "default, without contexts": [*DEFAULT, *ALONE],
    "default, over tokens": [*DEFAULT, *TOKENS],
    "default, without contexts, over tokens": [*DEFAULT, *PLAIN],
    "default, without contexts, over tokens, strength 1": [*DEFAULT, *PLAIN, *strength(1.0)],
    "default, within 10": [*DEFAULT, *instead("to_place", place="stop", within=10.0, length=0.5)],
    "default, answers half as long, twice as many": [
        *DEFAULT,
        *("--sampling.max_new_tokens", "56"),
        *("--training.retain_batch_size", "14", "--training.micro_batch", "14"),
    ],
    "default, twice as long": [*DEFAULT, "--training.steps", "600"],
    "default, borderline once": [*DEFAULT, *EQUAL],
    "default, rounded off less": [*DEFAULT, *rounded(0.01)],
    "default, not rounded off": [*DEFAULT, "--losses.retain", '{"name": "relative"}'],
    "default at the middle and four fifths": [*DEFAULT, "--losses.target_depths", "[0.54, 0.8]"],
    "default at two thirds": [*DEFAULT, "--losses.target_depths", "[0.67]"],
    "default, strength 1": [*DEFAULT, *strength(1.0)],
    "default at two thirds, strength 0.93": [*DEFAULT, "--losses.target_depths", "[0.67]", *strength(0.93)],
    "default at four fifths": [*DEFAULT, *FOUR_FIFTHS],
    "default at four fifths, strength 0.92": [*DEFAULT, *FOUR_FIFTHS, *strength(0.92)],
    "default at four fifths, strength 0.9": [*DEFAULT, *FOUR_FIFTHS, *strength(0.9)],
    "default at four fifths, strength 0.85": [*DEFAULT, *FOUR_FIFTHS, *strength(0.85)],
    "quickstart until 2026-11-29": ["--recipe", "four-fifths"],
    "lengths free": [*DEFAULT, *instead("to_place", place="stop", within=30.0, length=0.0)],
    "quickstart, 150 steps": [*QUICK, "--training.steps", "150"],
    "angle instead of the end": [*QUICK, *ANGLE, SCHEDULE, RAMP],
    "place at layer 20": [*QUICK, *AT_20],
    "adapters everywhere": [*QUICK, "--lora.first_depth", "null"],
    "X-Boundary's loss": [*QUICK, *instead("boundary")],
    "RepBend's loss": [*QUICK, *instead("bend")],
    "orthogonal in the batch": [*QUICK, *instead("orthogonal")],
    "late starts": [*QUICK, "--data.late_start", "0.5"],
    "contexts": [*QUICK, "--data.contexts", "0.5", "--data.retain_contexts", "0.25"],
    "retain after harm": [*QUICK, "--data.retain_after_harm", "0.25"],
    "no borderline prompts": [*QUICK, *retaining(retained("benign", limit=240))],
}


def configuration(name: str) -> RunConfig:
    """The run of a row, seeds apart."""
    _, recipe, *overrides = VARIANTS[name]
    return load_config(RunConfig, recipe_path(recipe), overrides)


def source(kind: str) -> dict[str, Any]:
    """Bundled *validation* prompts: a default is chosen by this table, so the test ones stay unseen."""
    return {"name": "bundled", "options": {"kind": kind, "split": "validation"}}


HARMLESS = [source("borderline"), source("benign")]
MEASURES = {
    "intrinsic": {"sources": HARMLESS, "limit": 40},
    "over_refusal": {"sources": HARMLESS},
    "ending": {"source": source("harmful")},
}
COLUMNS: dict[str, tuple[str, str, str, str, float]] = {
    "tripped, plain %": ("ending", "tripped", "plain", "rerouted", 100),
    "opened %": ("ending", "tripped", "prefilled", "rerouted", 100),
    "ends in 24, plain %": ("ending", "ended within 24 tokens", "plain, tripped", "rerouted", 100),
    "opened % ": ("ending", "ended within 24 tokens", "prefilled, tripped", "rerouted", 100),
    "NLL benign": ("intrinsic", "nll", "benign", "difference", 1),
    "KL benign": ("intrinsic", "kl", "benign", "rerouted", 1),
    "KL borderline": ("intrinsic", "kl", "borderline", "rerouted", 1),
    "complied, benign": ("over_refusal", "complied", "benign", "difference", 100),
    "borderline": ("over_refusal", "complied", "borderline", "difference", 100),
}
"""Measure, finding, part, which of its figures, and the unit."""


def run(*command: str) -> None:
    """One command of the package's own, in this environment."""
    sys.stderr.write(f"rerouting {' '.join(command)}\n")
    subprocess.run([sys.executable, "-m", "rerouting", *command], check=True)


def at_another_strength(name: str, seed: str, out: Path) -> Path | None:
    """A finished run that differs from this one in its strength alone: its training need not be repeated."""
    wanted = configuration(name)
    for other in VARIANTS:
        folder = out / f"{other}-{seed}"
        if other == name or not (folder / "README.md").is_file():
            continue
        found = load_config(RunConfig, folder / "config.yaml", [])
        apart = found.lora.strength != wanted.lora.strength
        if apart and comparable(found) == comparable(wanted):
            return folder
    return None


def comparable(config: RunConfig) -> RunConfig:
    """The configuration without its words, its strength, and what is the same in all rows."""
    lora, sampling = replace(config.lora, strength=1.0), replace(config.sampling, seed=0)
    return replace(
        config, lora=lora, sampling=sampling, seed=0, evaluation=RunConfig().evaluation, description=""
    )


def train(name: str, seed: str, out: Path) -> Path:
    """The run of a row; one that was stopped goes on."""
    folder = out / f"{name}-{seed}"
    trained = at_another_strength(name, seed, out)
    if trained and not (folder / "checkpoints").exists():
        run(
            "rescale",
            str(trained),
            "--strength",
            str(configuration(name).lora.strength),
            "--out",
            str(folder),
        )
    else:
        fixed = ["--seed", seed, "--sampling.seed", "0", "--evaluation.sets", "[]"]
        run("train", *VARIANTS[name], *fixed, "--out", str(folder))
    return folder


def measure(folder: Path, shared: Path) -> None:
    """Evaluate a run with the base's answers that are known already."""
    answers = folder / "validation" / "answers"
    answers.mkdir(parents=True, exist_ok=True)
    for file in shared.glob("base-*.jsonl"):
        shutil.copy(file, answers)
    measures, options = json.dumps(list(MEASURES)), json.dumps(MEASURES)
    kept = folder / "validation"
    run("evaluate", str(folder), "--out", str(kept), "--measures", measures, "--measure_options", options)
    shared.mkdir(exist_ok=True)
    for file in answers.glob("base-*.jsonl"):
        shutil.copy(file, shared)


def strangers(out: Path) -> list[str]:
    """Folders whose run is not that of the row that they are named after: from before a row or the recipe changed."""
    folders = [file.parent for file in sorted(out.glob("*/config.yaml"))]
    return [
        folder.name
        for folder in folders
        if (name := folder.name.rpartition("-")[0]) in VARIANTS
        and comparable(load_config(RunConfig, folder / "config.yaml", [])) != comparable(configuration(name))
    ]


def cell(values: list[float | None], scale: float) -> str:
    """Mean, and the range where there are several."""
    known = [value * scale for value in values if value is not None]
    if not known:
        return "–"
    form = "{:+.3f}" if scale == 1 else "{:.1f}"
    middle = form.format(mean(known))
    return middle if len(known) == 1 else f"{middle} [{form.format(min(known))}, {form.format(max(known))}]"


def table(out: Path) -> str:
    """A row a variant."""
    found: dict[str, list[Any]] = {}
    for file in sorted(out.glob("*/validation/summary.json")):
        found.setdefault(file.parent.parent.name.rpartition("-")[0], []).append(json.loads(file.read_text()))
    lines = [f"| variant | seeds | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, summaries in found.items():
        cells = []
        for wanted, finding, part, figure, scale in COLUMNS.values():
            values = [
                one[figure]
                for summary in summaries
                for one in summary["measures"].get(wanted, {"findings": []})["findings"]
                if (one["name"], one["part"]) == (finding, part)
            ]
            cells.append(cell(values, scale))
        lines.append(f"| {name} | {len(summaries)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(out: Path, file: Path) -> None:
    """Harmful requests that do not trip against harmless ones lost, every run a point, and the front of the means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from rerouting.evaluation.pareto import front

    points: dict[str, list[tuple[float, float]]] = {}
    for folder in sorted(out.glob("*/validation/summary.json")):
        found = {
            (wanted, one["name"], one["part"]): one
            for wanted, measure in json.loads(folder.read_text())["measures"].items()
            for one in measure["findings"]
        }
        lost = -100 * found["over_refusal", "complied", "borderline"]["difference"]
        left = 100 * (1 - found["ending", "tripped", "plain"]["rerouted"])
        points.setdefault(folder.parent.parent.name.rpartition("-")[0], []).append((lost, left))
    means = {name: (mean(x for x, _ in own), mean(y for _, y in own)) for name, own in points.items()}
    figure, panel = pyplot.subplots(figsize=(7.2, 4.2))
    names = list(means)
    along = [means[names[at]] for at in front([means[name] for name in names])]
    panel.plot(*zip(*along, strict=True), color="#cbd2d9", zorder=0, drawstyle="steps-post")
    for name, own in points.items():
        colour = "#2d6cdf" if name == "default" else "#7b8794"
        panel.scatter(*zip(*own, strict=True), color=colour, s=14, alpha=0.5)
        panel.scatter(*means[name], color=colour, s=36)
        panel.annotate(name, means[name], textcoords="offset points", xytext=(6, 4), fontsize=8, color=colour)
    panel.set_xlabel("borderline requests no longer complied with, points")
    panel.set_ylabel("plain harmful requests that do not trip, %")
    panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=140)


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", help=f"of: {', '.join(VARIANTS)}; none: the table alone")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--plot", type=Path, help="also draw the trade-off to this file")
    args = parser.parse_args()
    unknown = set(args.variants) - set(VARIANTS)
    if unknown:
        parser.error(f"no such variant: {', '.join(sorted(unknown))}")
    for seed in args.seeds.split(","):
        for name in args.variants:
            measure(train(name, seed, args.out), args.out / "base_answers")
    for folder in strangers(args.out):
        sys.stderr.write(f"{folder} is not what its row is now: rename the folder, or take a new one\n")
    sys.stdout.write(table(args.out))
    if args.plot:
        plot(args.out, args.plot)


if __name__ == "__main__":
    main()
