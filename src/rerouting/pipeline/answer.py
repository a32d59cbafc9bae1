"""Any prompts, answered by both models of a finished run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rerouting.core.attempt import Attempt
from rerouting.core.config import load_config
from rerouting.core.errors import UserError
from rerouting.core.finder import Component, build
from rerouting.core.records import Chat, Message
from rerouting.core.rundir import is_run
from rerouting.data.config import SourceConfig
from rerouting.evaluation.compare import compare, summarise, trials
from rerouting.models.loading import LoadedModel, load
from rerouting.pipeline.evaluate import spread
from rerouting.pipeline.prepare import chats_of
from rerouting.training.config import RunConfig

DIRECT = Component("direct")


def answer_prompts(
    run: Path,
    name: str,
    *,
    prompts: Sequence[str] = (),
    prefill: str = "",
    source: SourceConfig | None = None,
    attack: Component = DIRECT,
    limit: int | None = None,
    max_new_tokens: int = 64,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Answer given prompts, or those of a data set.

    Args:
        run: run directory with a merged model.
        name: the set's name in the rows and the summary.
        prompts: single user turns; used when there is no source.
        prefill: what the answers are made to begin with; instead of an attack.
        source: a data set.
        attack: how the prompts are sent.
        limit: prompts taken from it.
        max_new_tokens: length at which an answer is cut.

    Returns:
        Rows and summary, as `pipeline.evaluate` gives them.

    Raises:
        UserError: no finished run there, or unusable prompts.
    """
    if source is None:
        chats = [Chat(f"prompt-{at + 1}", (Message("user", text),)) for at, text in enumerate(prompts)]
    else:
        chats = spread(chats_of(source), limit)
    attempts = (
        [Attempt(chat, prefill) for chat in chats] if prefill else build("attacks", attack).prompts(chats)
    )
    base, rerouted = models_of(run)
    rows = compare(base, rerouted, trials(name, attempts, base.tokenizer), max_new_tokens=max_new_tokens)
    return rows, {"sets": {name: summarise(rows)}}


def models_of(run: Path) -> tuple[LoadedModel, LoadedModel]:
    """Base and rerouted model of a run.

    Raises:
        UserError: the folder is no run, or its model is not there yet.
    """
    if not is_run(run):
        raise UserError(
            f"{run} is not a run directory",
            "give the folder that train or quickstart wrote (attack: or name the base of a model that is no run)",
        )
    if not (run / "model" / "config.json").is_file():
        raise UserError(f"{run} has no merged model yet", f"finish it: rerouting train --config {run}/config.yaml "
                        f"--out {run}")  # fmt: skip
    config = load_config(RunConfig, run / "config.yaml")
    base_path = json.loads((run / "manifest.json").read_text())["base_model_path"]
    name = base_path if Path(base_path).is_dir() else config.model.name
    rerouted = load(replace(config.model, name=str(run / "model")))
    return load(replace(config.model, name=name)), replace(rerouted, adapter_path=run / "adapter")
