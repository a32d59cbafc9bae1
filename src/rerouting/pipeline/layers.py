"""How well each layer of the base tells harmful from harmless answers: a hint for where to reroute.

Ours. The direction of a layer is the difference between the mean states of the training streams' answers,
circuit breaker minus retain, each answer's tokens averaged first. It is fitted on training data, and judged on the
held-out streams by the area under the ROC curve of its projections; the cosine is that between the two training
means. A high area says that the layer knows; a low cosine, that there is room between the two. That rerouting works
best where both hold is a guess, cheap to try and not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from rerouting.core.errors import UserError
from rerouting.data.cache import CompletionCache
from rerouting.data.formatting import Example
from rerouting.losses.geometry import cosine
from rerouting.models.digest import weights_digest
from rerouting.models.gguf_cache import cache_folder
from rerouting.models.layers import decoder_blocks
from rerouting.models.loading import LoadedModel, load, require_chat_template
from rerouting.models.trunk import Trunk
from rerouting.pipeline.prepare import Preparation
from rerouting.pipeline.run import checkpoint_folder
from rerouting.training.config import RunConfig
from rerouting.training.loop import TrainingData
from rerouting.training.states import mean_states

NEAR_BEST = 0.01
"""Areas this near to the best count as equal to it."""


@dataclass(frozen=True)
class Separation:
    """How one layer tells the two apart.

    Attributes:
        layer: as in `target_layers`.
        auc: of held-out harmful over harmless answers, 0 to 1.
        cosine: between the two means of the training answers.
    """

    layer: int
    auc: float
    cosine: float


def layers(config: RunConfig, limit: int) -> dict[str, Any]:
    """Load the base, build the recipe's streams (completions come from the cache, or are sampled) and measure.

    Args:
        config: as for `train`.
        limit: different training examples of each stream that the directions are fitted on.

    Returns:
        `rows` (layer, auc, cosine), `chosen` layer, and numbers of examples.

    Raises:
        UserError: a stream or held-out stream is empty, or as `train`.
    """
    if limit < 2:
        raise UserError(f"--limit is {limit}", "give 2 or more")
    _require_held_out(config)
    base = load(config.model)
    require_chat_template(base.tokenizer, config.model.name)
    digest = weights_digest(checkpoint_folder(base))
    cache = CompletionCache(cache_folder() / "completions")
    data = Preparation(config, base, digest, cache).streams()
    rows, counts = measured(config, base, data, limit)
    return {"rows": [vars(row) for row in rows], "chosen": choose(rows), "examples": counts}


def measured(
    config: RunConfig, base: LoadedModel, data: TrainingData, limit: int
) -> tuple[list[Separation], dict[str, int]]:
    """Every layer's separation, and how many examples each stream gave."""
    depth = len(decoder_blocks(base.model, config.model.blocks))
    every = range(1, depth + 1)
    trunk = Trunk(base.model, depth, config.model.blocks)
    streams = {
        "harmful": _answers(data.circuit_breaker, limit),
        "harmless": _answers(data.retain, limit),
        "held_out_harmful": _answers(data.held_out_harmful, None),
        "held_out_harmless": _answers(data.held_out_benign, None),
    }
    for name, examples in streams.items():
        if not examples:
            raise UserError(f"the {name.replace('_', ' ')} stream has no answers", "check its sources")
    states = {
        name: mean_states(
            trunk,
            examples,
            every,
            pad_id=base.tokenizer.pad_token_id,
            size=config.training.micro_batch,
            what=f"{name.replace('_', ' ')} answers",
        )[0]
        for name, examples in streams.items()
    }
    rows = separations(list(every), *states.values())
    return rows, {name: len(examples) for name, examples in streams.items()}


def separations(
    numbers: Sequence[int], harmful: Tensor, harmless: Tensor, held_harmful: Tensor, held_harmless: Tensor
) -> list[Separation]:
    """From answers' mean states, (S, L, D) each, with S of its own."""
    first, second = harmful.mean(dim=0), harmless.mean(dim=0)  # (L, D)
    direction = first - second
    above, below = ((states * direction).sum(dim=-1) for states in (held_harmful, held_harmless))  # (S, L)
    likeness = cosine(first, second)
    return [
        Separation(layer, auc(above[:, at], below[:, at]), float(likeness[at]))
        for at, layer in enumerate(numbers)
    ]


def auc(positive: Tensor, negative: Tensor) -> float:
    """Probability that a positive (P,) scores above a negative (Q,), ties counting half."""
    difference = positive[:, None] - negative[None]
    return float((difference.sign() + 1).mean() / 2)


def choose(rows: Sequence[Separation]) -> int:
    """Of the layers whose area is within 0.01 of the best, the one with the lowest cosine between the means."""
    best = max(row.auc for row in rows)
    near = [row for row in rows if row.auc >= best - NEAR_BEST]
    return min(near, key=lambda row: (row.cosine, row.layer)).layer


def _answers(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """Different examples, their masks on the response alone."""
    different = {one.ids: one for one in examples if len(one.ids) > one.n_prompt}
    return [
        replace(one, mask=tuple(at >= one.n_prompt for at in range(len(one.ids))))
        for one in list(different.values())[:limit]
    ]


def _require_held_out(config: RunConfig) -> None:
    for name in ("held_out_harmful", "held_out_benign"):
        if not getattr(config.data, name):
            raise UserError(
                f"data.{name} has no source, and the layers are judged on it",
                "add one, as the recipe quickstart does",
            )
