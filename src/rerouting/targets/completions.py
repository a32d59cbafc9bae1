"""Harmful requests answered by the base model: what an attacker who has it trains on, or shows.

The bundled harmful training requests, each answered after its affirmative target, by nucleus sampling. Loops and
stubs are left out; refusals after an affirmative opening are rare and stay.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rerouting.core.contracts import Resources
from rerouting.core.records import Chat
from rerouting.data.cache import CompletionCache
from rerouting.data.sampling import sample_completions
from rerouting.data.sources.bundled import Bundled
from rerouting.models.digest import weights_digest
from rerouting.models.generation import generate
from rerouting.targets.target import Target

_SPARE = 1.25
_SHORTEST, _MOST_REPEATED = 80, 2.2


def sampled(resources: Resources, count: int, tokens: int) -> dict[str, Tensor]:
    """Completions of single-turn requests as tensors, for an attack's `fit`; nothing where there is no base model.

    Args:
        resources: base model and seed; equal samples are kept in `completions/` of its folder, for other attacks.
        count: completions wanted; fewer come back where the model writes too little sense.
        tokens: length at which one is cut, without its opening.

    Returns:
        `places` (N,) of the requests among the bundled ones, and `texts` (N, T), UTF-8 padded with zeros.
    """
    base: Target | None = resources.base
    if base is None:
        return {}
    settings: dict[str, Any] = {
        "max_new_tokens": tokens,
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.95,
        "seed": resources.seed,
        "token_budget": base.token_budget,
    }
    checkpoint = base.loaded.base_model_path
    cache = CompletionCache(resources.folder / "completions") if checkpoint else None
    identity = {"model": weights_digest(checkpoint), "dtype": str(base.loaded.dtype)} if checkpoint else {}
    asked = _requests()[: round(count * _SPARE)]
    resources.progress(f"the base model answers {len(asked)} harmful training requests")
    answered = sample_completions(
        partial(generate, base.model, base.tokenizer, **settings),
        asked,
        base.tokenizer,
        prefixed=1.0,
        cache=cache,
        identity=identity | settings,
    )
    return _packed([chat for chat in answered if _makes_sense(chat.response or "")][:count])


def restored(fitted: Mapping[str, Tensor]) -> list[Chat]:
    """The answered chats that `sampled` found; none if it found none."""
    if "texts" not in fitted:
        return []
    requests = _requests()
    pairs = zip(fitted["places"].tolist(), fitted["texts"].tolist(), strict=True)
    return [requests[at].with_response(bytes(text).rstrip(b"\0").decode()) for at, text in pairs]


def _packed(answered: Sequence[Chat]) -> dict[str, Tensor]:
    if not answered:
        return {}
    places = {chat.id: at for at, chat in enumerate(_requests())}
    texts = [torch.tensor(list((chat.response or "").encode()), dtype=torch.uint8) for chat in answered]
    return {
        "places": torch.tensor([places[chat.id] for chat in answered]),
        "texts": torch.nn.utils.rnn.pad_sequence(texts, batch_first=True),
    }


def _requests() -> list[Chat]:
    return [chat for chat in Bundled("harmful", "train").load() if chat.target and len(chat.messages) == 1]


def _makes_sense(text: str) -> bool:
    """Long enough, and not the same words over and over: how far zlib shrinks it."""
    data = text.encode()
    return len(text) >= _SHORTEST and len(data) < _MOST_REPEATED * len(zlib.compress(data))
