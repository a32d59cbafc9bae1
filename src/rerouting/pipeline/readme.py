"""What a run prints at its end, and the README.md in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rerouting.core.findings import MODELS
from rerouting.core.stats import Rate
from rerouting.training.config import RunConfig

COLUMNS = ("set", "model", "n", "answered %", "refused %", "broken %", "NLL of base's answers")


def table(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a set and model; rates with 95 % Wilson intervals."""
    rows = []
    for name, item in summary["sets"].items():
        for model in MODELS:
            own = item[model]
            rates = [_percent(own[label]) for label in ("answered", "refused", "broken")]
            nll = own["base_answer_nll"]
            rows.append((name, model, str(item["n"]), *rates, "–" if nll is None else f"{nll:.3f}"))
    return rows


def markdown_table(summary: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *table(summary)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def run_readme(config: RunConfig, summary: dict[str, Any], folder: Path) -> str:
    """Text of README.md: what this run is, what was measured, how to use and repeat it."""
    measured = markdown_table(summary) if summary else "Nothing was evaluated."
    return f"""# {config.model.name} with circuit breakers

{config.description}

{measured}

*Broken*: gibberish, by a rule that compares with the base model's own answer (`rerouting/judges/broken.py`); the base
itself is therefore never broken, unless its answer is empty. *NLL*: nats a token of the base model's own answers,
under each model. Intervals: Wilson, 95 %.

## Files

- `adapter/`: LoRA adapter in PEFT's format; `model/`: the merged model.
- `config.yaml`: the whole configuration; `manifest.json`: versions, hashes, hardware, seconds and memory a stage.
- `metrics.jsonl`: training; `generations.jsonl`: every prompt, both answers, labels; `summary.json`: the rates.

## Use and repeat

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("{folder}/model")
tokenizer = AutoTokenizer.from_pretrained("{folder}/model")
```

    rerouting train --config {folder}/config.yaml --out another-folder
"""


def _percent(rate: dict[str, Any]) -> str:
    if rate["rate"] is None:
        return "–"
    shown = Rate(rate["hits"], rate["n"])
    return f"{100 * rate['rate']:.1f} [{100 * (shown.low or 0):.1f}, {100 * (shown.high or 0):.1f}]"
