"""The table that a run prints at its end, and that its card shows."""

from __future__ import annotations

from typing import Any

from rerouting.core.findings import MODELS
from rerouting.core.stats import Rate

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


def _percent(rate: dict[str, Any]) -> str:
    if rate["rate"] is None:
        return "–"
    shown = Rate(rate["hits"], rate["n"])
    return f"{100 * rate['rate']:.1f} [{100 * (shown.low or 0):.1f}, {100 * (shown.high or 0):.1f}]"
