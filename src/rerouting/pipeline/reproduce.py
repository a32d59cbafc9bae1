"""A run repeated from its own record, and what differs: before the training, and in what came out of it.

What could break bit-equality on one machine, and what is done about it: sums depend on the number of threads (the
recorded number is set), on the order of work under another batching (compared), and on the folder that relative paths
start from (the recorded one is used). Completions are sampled anew, because those in the shared cache may come from
another day's versions; `cached` takes them from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write
from rerouting.core.manifest import environment
from rerouting.core.rundir import RunDir
from rerouting.data.cache import CompletionCache
from rerouting.pipeline.compared import bit_equal, compared
from rerouting.pipeline.recorded import (
    Difference,
    Recorded,
    as_recorded,
    data_differences,
    environment_differences,
    read_record,
    stage_differences,
)
from rerouting.pipeline.run import batching, execute

REPORT = "reproduced.json"
COMPLETIONS = "completions"
"""Folder, in the repeated run's, of the completions that it sampled."""


def reproduce(
    run: Path,
    out: Path,
    *,
    anyway: bool = False,
    cached: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Repeat `run` in `out`, or go on with repeating it, and compare.

    Args:
        run: a finished run.
        out: folder of the repeated one.
        anyway: repeat also what cannot become the same (other data, other weights, a damaged record).
        cached: take completions from the cache that all runs share, instead of sampling them anew.
        tell: called with a line for each difference that is known before the training.

    Returns:
        What reproduced.json holds; empty in all processes but the main one.

    Raises:
        UserError: data or model cannot be the same and `anyway` was not given; anything that ends a run.
    """
    run, out = run.expanduser().resolve(), out.expanduser().resolve()
    if run == out:
        raise UserError(f"{run} is to be repeated in itself", "give another folder with --out")
    recorded = read_record(run)
    before: list[Difference] = []

    def met(found: Sequence[Difference]) -> None:
        before.extend(found)
        for one in found:
            tell(str(one))
        _refuse(found, anyway)

    with as_recorded(recorded, tell):
        now = environment() | {"batching": batching(recorded.config)}
        met([*recorded.faults, *environment_differences(recorded, now), *data_differences(recorded)])
        cache = None if cached else CompletionCache(out / COMPLETIONS)
        execute(
            recorded.config,
            out,
            cache=cache,
            watch=lambda stage, facts: met(stage_differences(recorded, stage, facts)),
        )
    if int(os.environ.get("RANK", "0")):
        return {}
    return _report(recorded, RunDir.of_another_process(out), before, cached)


def _refuse(found: Sequence[Difference], anyway: bool) -> None:
    deciding = [one for one in found if one.decides]
    if deciding and not anyway:
        raise UserError(
            f"the run cannot be repeated as it was: {'; '.join(map(str, deciding))}",
            "put back what differs, or repeat it --anyway",
        )


def _report(recorded: Recorded, out: RunDir, before: Sequence[Difference], cached: bool) -> dict[str, Any]:
    parts = compared(recorded.run, out, bool(recorded.config.evaluation.sets))
    facts = json.loads(out.manifest.read_text(encoding="utf-8"))
    own = dict.fromkeys([*before, *stage_differences(recorded, "load", facts)])
    own |= dict.fromkeys(stage_differences(recorded, "prepare", facts))
    found = {
        "run": str(recorded.run.path),
        "repeated_in": str(out.path),
        "bit_equal": bit_equal(parts),
        "processes": {"run": len(recorded.processes), "repeated": len(facts["processes"])},
        "completions": {
            "run": _completions(recorded.facts),
            "repeated": _completions(facts),
            "shared_cache": cached,
        },
        "before": [asdict(one) for one in own],
        "parts": parts,
    }
    atomic_write(out.path / REPORT, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return found


def _completions(facts: Mapping[str, Any]) -> list[str]:
    """How the run came by its completions: sampled, from the cache, or both."""
    rows = [row for rows in facts.get("data", {}).get("sources", {}).values() for row in rows]
    return sorted({row["completions"] for row in rows if "completions" in row})
