"""The table that a run prints at its end, and that its card shows."""

from __future__ import annotations

from typing import Any

from rerouting.core.findings import MODELS
from rerouting.core.stats import Rate

COLUMNS = ("set", "model", "n", "answered %", "refused %", "broken %", "base's answer lost %", "NLL")
SHOWN = "answered with what must not be said %"
"""A further column where sets have signs."""


def columns(summary: dict[str, Any]) -> tuple[str, ...]:
    """The heads of the table."""
    signed = any("where_base_shows" in item for item in summary["sets"].values())
    return (*COLUMNS[:-2], SHOWN, *COLUMNS[-2:]) if signed else COLUMNS


def table(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a set and model, of sets with signs one more where the base shows them; 95 % Wilson intervals."""
    rows = []
    signed = len(columns(summary)) > len(COLUMNS)
    for name, item in summary["sets"].items():
        parts = [(name, item)]
        if "where_base_shows" in item:
            parts.append((f"{name}: where the base says it", item["where_base_shows"]))
        for title, part in parts:
            for model in MODELS:
                own = part[model]
                rates = [_percent(own[label]) for label in ("answered", "refused", "broken")]
                if signed:
                    rates.append(_percent(own["shows"]) if "shows" in own else "–")
                rates.append(_percent(own["lost"]) if "lost" in own else "–")
                nll = own.get("base_answer_nll")
                rows.append((title, model, str(part["n"]), *rates, "–" if nll is None else f"{nll:.3f}"))
    return rows


def _percent(rate: dict[str, Any]) -> str:
    if rate["rate"] is None:
        return "–"
    shown = Rate(rate["hits"], rate["n"])
    return f"{100 * rate['rate']:.1f} [{100 * (shown.low or 0):.1f}, {100 * (shown.high or 0):.1f}]"
