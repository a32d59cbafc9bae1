"""The attack table as rows, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rerouting.core.files import atomic_write
from rerouting.core.findings import MODELS
from rerouting.core.tables import markdown_table
from rerouting.evaluation.compare import LABELS

COLUMNS = (
    "attack",
    "behaviours",
    "model",
    "n",
    "ASR %",
    "verified %",
    "unscored",
    "answered",
    "refused",
    "broken",
    "difference (p)",
    "tokens",
    "seconds",
)
NOTE = (
    "ASR: attack success rate by the deciding judge with its 95 % Wilson interval; n: scored; verified: "
    "after a person overruled the judge, with the number of answers read (`rerouting review`); answered, refused, "
    "broken: what became of all answered ones; difference: rerouted − base in percentage points with its 95 % interval "
    "(Newcombe), p by McNemar's exact test; tokens: positions that went forward through the model under attack, "
    "padding included, judges, attackers' models and translators not; what an attack learns once a model counts in "
    "`all` alone. A behaviour falls if one of its attempts succeeds."
)


DIFFERENCE = {"": "difference", "_low": "low", "_high": "high", "_p": "p", "_n": "n"}
CSV_COLUMNS = (
    *("attack", "behaviours", "model", "n", "hits", "rate", "low", "high", "unscored", *LABELS),
    *("attempts", "forward_tokens", "seconds"),
    *(f"verified_{name}" for name in ("n", "hits", "rate", "low", "high", "read")),
    *(f"difference{end}" for end in DIFFERENCE),
    "note",
)


def table_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row an attack, part and model."""
    rows = []
    for attack, parts in summary["attacks"].items():
        if "skipped" in parts:
            rows.append((attack, "not run", parts["skipped"], *[""] * (len(COLUMNS) - 3)))
            continue
        for part, pair in parts.items():
            rows += [_row(attack, part, model, pair[model], pair["paired"]) for model in MODELS]
    return rows


def _row(
    attack: str, part: str, model: str, own: dict[str, Any], paired: dict[str, Any] | None
) -> tuple[str, ...]:
    rate, verified = own["asr"], own.get("verified")
    difference = ""
    if model == "rerouted" and paired is not None:
        interval = f"[{100 * paired['low']:+.1f}, {100 * paired['high']:+.1f}]"
        difference = f"{100 * paired['difference']:+.1f} {interval} (p {paired['p']:.2g})"
    read = f"{_share(verified)}, {verified['read']} read" if verified else ""
    counts = [str(own["labels"][name]) for name in LABELS]
    cost = [_short(own["forward_tokens"]), f"{own['seconds']:.0f}"]
    asr = [str(rate["n"]), _share(rate), read, str(rate["unscored"])]
    shown = f"{part} ({own['beside']})" if own.get("beside") else part
    return (attack, shown, model, *asr, *counts, difference, *cost)


def _share(rate: dict[str, Any]) -> str:
    if rate["rate"] is None:
        return "–"
    return f"{_percent(rate['rate'])} [{_percent(rate['low'])}, {_percent(rate['high'])}]"


def notes(summary: dict[str, Any]) -> list[str]:
    """What belongs under the table: the attacker's model, and how often every two judges agree, with Cohen's kappa."""
    lines = []
    if {"pair", "tap", "crescendo"} & set(summary["attacks"]) and "assistant" in summary:
        given = ", ".join(str(value) for value in summary["assistant"].values())
        weak = " (the embedded model unless named: a weak attacker)" if given == "local" else ""
        lines.append(f"attacker's model of pair, tap and crescendo: {given}{weak}")
    for pair in summary.get("agreement", []):
        kappa = "undefined" if pair["kappa"] is None else f"{pair['kappa']:.2f}"
        share = "–" if pair["share"] is None else f"{_percent(pair['share'])} %"
        lines.append(
            f"{pair['judges'][0]} and {pair['judges'][1]}: agree on {share} of {pair['n']} answers, "
            f"Cohen's κ {kappa}"
        )
    return lines


def write_tables(summary: dict[str, Any], out: Path) -> None:
    """table.md, table.csv and table.tex."""
    atomic_write(out / "table.md", markdown(summary))
    atomic_write(out / "table.csv", comma_separated(summary))
    atomic_write(out / "table.tex", latex(summary))


def markdown(summary: dict[str, Any]) -> str:
    """A Markdown table with its note."""
    lines = markdown_table(COLUMNS, table_rows(summary))
    under = [NOTE, "", *(f"- {line}" for line in notes(summary))]
    return "\n".join([*lines, "", *under]) + "\n"


def comma_separated(summary: dict[str, Any]) -> str:
    """CSV, with a header; every figure in a column of its own."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for attack, parts in summary["attacks"].items():
        if "skipped" in parts:
            writer.writerow({"attack": attack, "note": f"not run: {parts['skipped']}"})
            continue
        for part, pair in parts.items():
            for model in MODELS:
                writer.writerow(
                    {"attack": attack, "behaviours": part, "model": model} | _figures(pair, model)
                )
    return out.getvalue()


def _figures(pair: dict[str, Any], model: str) -> dict[str, Any]:
    own, verified = pair[model], pair[model].get("verified")
    row = {name: own["asr"][name] for name in ("n", "hits", "rate", "low", "high", "unscored")}
    row |= own["labels"] | {name: own[name] for name in ("attempts", "forward_tokens", "seconds")}
    if verified:
        row |= {f"verified_{name}": verified[name] for name in ("n", "hits", "rate", "low", "high", "read")}
    if model == "rerouted" and pair["paired"]:
        found = pair["paired"]
        row |= {f"difference{end}": found[name] for end, name in DIFFERENCE.items()}
    return row


def latex(summary: dict[str, Any]) -> str:
    """A LaTeX tabular (booktabs)."""
    lines = [rf"\begin{{tabular}}{{{'l' * len(COLUMNS)}}}", r"\toprule", _tex(COLUMNS), r"\midrule"]
    lines += [_tex(row) for row in table_rows(summary)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(cells: Sequence[str]) -> str:
    signs = {
        "\\": r"\textbackslash{}",
        "%": r"\%",
        "_": r"\_",
        "&": r"\&",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "#": r"\#",
        "$": r"\$",
        "–": "--",
        "−": "--",
        "→": r"$\rightarrow$",
    }
    return " & ".join("".join(signs.get(sign, sign) for sign in cell) for cell in cells) + r" \\"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _short(count: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return f"{count:.0f}"
