"""Base and rerouted model on the evaluation sets of a run."""

from __future__ import annotations

from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.finder import Component, build
from rerouting.data.cache import CompletionCache, completion_key
from rerouting.data.loading import chats_of, spread
from rerouting.evaluation.compare import Trial, answer, compare, mark, summarise, trials
from rerouting.models.loading import LoadedModel
from rerouting.training.config import EvaluationConfig


def evaluate(
    config: EvaluationConfig,
    base: LoadedModel,
    rerouted: LoadedModel,
    cache: CompletionCache,
    digest: str,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Answer every set with both models.

    Args:
        config: the sets.
        base: the model as it was.
        rerouted: the model with circuit breakers.
        cache: keeps the base's answers from run to run.
        digest: hash of the base's weights.

    Returns:
        All rows (see `evaluation.compare`), and one summary a set.

    Raises:
        UserError: two sets of one name, or a set that cannot be loaded.
    """
    names = [one.name for one in config.sets]
    if len(set(names)) < len(names):
        raise UserError(f"evaluation.sets has a name twice: {names}", "give every set a name of its own")
    sent: list[Trial] = []
    for one in config.sets:
        chats = spread(chats_of(one.source), one.limit)
        attempts = build("attacks", Component(one.attack, one.attack_options)).prompts(chats)
        sent += trials(one.name, attempts, base.tokenizer)

    def base_answers() -> list[list[int]]:
        identity = {"model": digest, "dtype": str(base.dtype), "max_new_tokens": config.max_new_tokens}
        key = completion_key({"greedy": True, **identity}, [trial.prompt for trial in sent])
        kept = cache.get(key)
        if kept is not None and len(kept) == len(sent):
            return [list(row["ids"]) for row in kept]
        answers = answer(base, sent, config.max_new_tokens, "answers of the base model")
        cache.put(key, [{"ids": ids} for ids in answers])
        return answers

    rows = compare(base, rerouted, sent, max_new_tokens=config.max_new_tokens, base_answers=base_answers)
    by_set = {one.name: [row for row in rows if row["set"] == one.name] for one in config.sets}
    for one in config.sets:
        if one.signs:
            mark(by_set[one.name], one.signs)
    return rows, {"sets": {name: summarise(own) for name, own in by_set.items()}}
