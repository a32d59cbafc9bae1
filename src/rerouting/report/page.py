"""The whole page: sections, templates, scripts, and a limit on its size."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write
from rerouting.report import bundle
from rerouting.report.parts import Limits, Section
from rerouting.report.reading import Run, open_runs
from rerouting.report.sections import (
    attacks,
    card,
    comparison,
    cost,
    examples,
    headline,
    heat_maps,
    over_refusal,
    probes,
    states,
    tradeoff,
    training,
)

TEMPLATES = Path(__file__).parent / "templates"
LARGEST = 5_000_000
"""Bytes of a page."""
SECTIONS: tuple[Callable[[Sequence[Run], Limits], Section], ...] = (
    headline.section,
    attacks.section,
    tradeoff.section,
    over_refusal.section,
    training.section,
    states.section,
    heat_maps.section,
    examples.section,
    probes.section,
    cost.section,
    card.section,
)


def write_report(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write one page about all runs.

    Args:
        paths: run directories.
        out: the file; report.html in the first run's folder if None.

    Returns:
        Where it is.

    Raises:
        UserError: a path is no run directory, the page would be too large, or the file cannot be written.
    """
    runs = open_runs(paths)
    out = runs[0].path / "report.html" if out is None else out
    if out.is_dir():
        raise UserError(f"{out} is a folder", "name a file for the page, such as report.html")
    atomic_write(out, render(runs))
    return out


def render(runs: Sequence[Run]) -> bytes:
    """The page, with less of what can be long where it would be too large.

    Raises:
        UserError: it would be too large even so.
    """
    limits = Limits()
    for _ in range(5):
        page = _rendered(runs, limits).encode("utf-8", "replace")
        if len(page) < LARGEST:
            return page
        limits = limits.halved()
    raise UserError(f"the page about {len(runs)} runs would be over {LARGEST / 1e6:g} MB", "give fewer runs")


def _rendered(runs: Sequence[Run], limits: Limits) -> str:
    several = (comparison.section,) if len(runs) > 1 else ()
    sections = [section(runs, limits) for section in (*several, *SECTIONS)]
    own = bundle.script((TEMPLATES / "page.js").read_text(encoding="utf-8"))
    return (
        environment()
        .get_template("page.html")
        .render(
            runs=runs,
            sections=sections,
            style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
            script=Markup(own.text),
            digests=[own.digest, bundle.plotly().digest],
            plotly=bundle.plotly().text,
            made_by=card.made_by(),
        )
    )


@cache
def environment() -> Environment:
    """The templates; every value is escaped."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["embedded"] = embedded
    return made


def embedded(value: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
