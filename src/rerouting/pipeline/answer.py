"""Any prompts, answered by both models of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rerouting.core.attempt import Attempt
from rerouting.core.finder import Component, build
from rerouting.core.records import Chat, Message
from rerouting.data.config import SourceConfig
from rerouting.data.loading import chats_of, spread
from rerouting.evaluation.compare import compare, summarise, trials
from rerouting.pipeline.pair import models_of

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
