"""Places: states of the base model that a rerouting loss may route to, or away from.

Ours. Measured once, before training, from the training streams alone, at the target layers, in float32; but for `stop`
each is a mean over tokens:

- `retain`: response tokens of the retain stream;
- `harmful`: response tokens of the circuit-breaker stream;
- `end`: in whole retain responses, the token after which the end of turn comes, and which so predicts it;
- `stop`: `end`, turned to where the blocks above end the turn (training/stop_place.py);
- `refusal`: the first words of retain responses that decline (`core.refusal.declines`), 8 tokens of each. Not the
  prompt's last token, which predicts the first of them: where refusals are not the model's own, its state is still that
  of a model about to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rerouting.core.errors import UserError
from rerouting.core.finder import build
from rerouting.core.near import way_out
from rerouting.core.refusal import declines
from rerouting.data.formatting import Example
from rerouting.data.template import closing_ids
from rerouting.models.trunk import Trunk
from rerouting.training.config import LossConfig
from rerouting.training.states import mean_states
from rerouting.training.stop_place import stopping

if TYPE_CHECKING:
    from rerouting.training.loop import TrainingData

MOST = 128
"""Different examples that a place is measured on, the stream's first: 128 put `end` two degrees from where 512 do."""
OPENING = 8
"""Tokens of a refusal that count as its beginning."""


@dataclass(frozen=True)
class Place:
    """A state at each of L layers.

    Attributes:
        state: (L, D) float32.
        examples: how many it was measured on.
        tokens: how many tokens.
        ends: of `stop`, by layer: the probability of the end of turn from half the way.
    """

    state: Tensor
    examples: int
    tokens: int
    ends: tuple[float, ...] = ()


def wanted(losses: LossConfig) -> tuple[str, ...]:
    """Names of the places that the rerouting loss asks for."""
    return tuple(getattr(build("losses.reroute", losses.reroute), "places", ()))


def measure(
    names: Sequence[str],
    trunk: Trunk,
    data: TrainingData,
    tokenizer: Any,
    layers: Sequence[int],
    *,
    pad_id: int,
    size: int,
) -> dict[str, Place]:
    """Measure places on the base model.

    Args:
        names: which.
        trunk: of the base, without adapters or with adapters that do nothing.
        data: the streams; the held-out ones are not looked at.
        tokenizer: with the chat template that the streams were made by.
        layers: L hidden layers.
        pad_id: token that fills a batch.
        size: examples in one forward pass.

    Raises:
        UserError: an unknown place, or a stream that has nothing to measure it on.
    """
    found = {}
    for name in names:
        examples = marked(name, data, tokenizer)[:MOST]
        means, counts = mean_states(
            trunk, examples, layers, pad_id=pad_id, size=size, what=f"measuring the place {name}"
        )
        total = (means.double() * counts.double()[:, None, None]).sum(dim=0) / counts.double().sum()
        found[name] = Place(total.float().contiguous(), len(examples), int(counts.sum()))
        if name == "stop":
            end, harmful = closing_ids(tokenizer)[-1], _different(data.circuit_breaker)
            turned, ends = stopping(trunk, layers, found[name].state, harmful, end)
            found[name] = replace(found[name], state=turned, ends=tuple(ends))
        if not torch.isfinite(found[name].state).all():
            raise UserError(f"the place {name} is not finite", "set model.dtype to float32")
    return found


def marked(name: str, data: TrainingData, tokenizer: Any) -> list[Example]:
    """Different examples of a place's stream whose mask marks the place's tokens, in the stream's order.

    Raises:
        UserError: as `measure`.
    """
    closing = closing_ids(tokenizer)
    ways: dict[str, tuple[Sequence[Example], Callable[[Example], range]]] = {
        "retain": (data.retain, _response),
        "harmful": (data.circuit_breaker, _response),
        "end": (data.retain, lambda example: _before_end(example, closing)),
        "stop": (data.retain, lambda example: _before_end(example, closing)),
        "refusal": (data.retain, lambda example: _refusal(example, tokenizer)),
    }
    if name not in ways:
        raise UserError(f"there is no place {name!r}", way_out(name, ways, "places"))
    stream, positions = ways[name]
    chosen = []
    for example in _different(stream):
        spots = positions(example)
        if spots:
            chosen.append(replace(example, mask=tuple(at in spots for at in range(len(example.ids)))))
    if not chosen:
        raise UserError(f"the place {name} cannot be measured: {_LACK[name][0]}", _LACK[name][1])
    return chosen


def _different(stream: Sequence[Example]) -> list[Example]:
    """Each example once, in the stream's order."""
    return list({one.ids: one for one in stream}.values())


_LACK = {
    "retain": ("no retain example has a response", "raise data.max_retain, or take other retain data"),
    "harmful": ("no circuit-breaker example has a response", "raise data.max_response, or take other data"),
    "end": (
        "no retain response ends with the end of turn",
        "set data.close to true, and raise data.max_retain (sampling.max_new_tokens) so that responses are whole",
    ),
    "refusal": (
        "no retain response declines",
        "give data.retain refusals: {name: refused, options: {options: {kind: harmful}}}, or your own through chats",
    ),
}
_LACK["stop"] = _LACK["end"]


def _response(example: Example) -> range:
    return range(example.n_prompt, len(example.ids))


def _before_end(example: Example, closing: list[int]) -> range:
    last = len(example.ids) - len(closing) - 1
    whole = bool(closing) and list(example.ids[last + 1 :]) == closing and last >= example.n_prompt
    return range(last, last + 1) if whole else range(0)


def _refusal(example: Example, tokenizer: Any) -> range:
    response = example.ids[example.n_prompt :]
    if not response or not declines(tokenizer.decode(response, skip_special_tokens=True)):
        return range(0)
    return range(example.n_prompt, min(example.n_prompt + OPENING, len(example.ids)))
