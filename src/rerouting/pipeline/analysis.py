"""Where and when rerouting moves a model's states, on harmful and on harmless answers.

Source: Zou et al. 2024, representation analysis: cosine and norm between the base's and the rerouted model's states by
layer, apart for the prompt and for the answer. Both models read the same text, the base's own answers in the run's
evaluation (in a run without, the held-out streams). Deviation: the last layer's state is after the final norm, as
transformers gives it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rerouting.core.config import load_config
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, read_jsonl
from rerouting.core.progress import bar
from rerouting.core.records import Chat
from rerouting.data.formatting import Example
from rerouting.data.messages import parse_messages
from rerouting.models.loading import LoadedModel
from rerouting.pipeline.analysis_figures import write_figures
from rerouting.pipeline.pair import models_of
from rerouting.pipeline.probing import answered
from rerouting.pipeline.reading_both import Reading, read_both
from rerouting.pipeline.streams import load_streams
from rerouting.pipeline.target_layers import at_depths
from rerouting.training.config import RunConfig

Row = dict[str, Any]
TOKENS = 64
"""Response tokens that curves by token show."""


def analyse(run: Path, limit: int, examples: int) -> Row:
    """Read, summarise, and write RUN/analysis.

    Args:
        run: a finished run.
        limit: texts of each kind.
        examples: texts of each kind that are kept token by token.

    Returns:
        What RUN/analysis/analysis.json holds.

    Raises:
        UserError: no finished run, or no texts.
    """
    base, rerouted = models_of(run)
    texts = {name: own[:limit] for name, own in _texts(run, base).items() if own}
    if not texts or limit < 1:
        raise UserError(f"{run} has no answers to read", "train with evaluation sets or held-out streams")
    depth = base.model.config.get_text_config().num_hidden_layers
    targets = at_depths(load_config(RunConfig, run / "config.yaml"), depth).losses.target_layers
    layer = max(targets)
    found: Row = {"layer": layer, "layers": list(range(depth + 1)), "kinds": {}, "by_token": {}, "trips": {}}
    found["examples"] = []
    for kind, own in texts.items():
        with bar(f"both models read {kind}", len(own)) as progress:
            readings = []
            for _, example in own:
                readings.append(read_both(base, rerouted, example))
                progress.advance()
        found["kinds"][kind] = {phase: _by_layer(readings, phase) for phase in ("prompt", "response")}
        found["by_token"][kind] = {"layer": layer, "cosine": _by_token(readings, layer)}
        found["trips"][kind] = _trips(readings, targets)
        found["examples"] += [
            _example(kind, request, example, reading, targets, base)
            for (request, example), reading in zip(own[:examples], readings, strict=False)
        ]
    folder = run / "analysis"
    folder.mkdir(exist_ok=True)
    atomic_write(folder / "analysis.json", json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n")
    write_figures(found, folder)
    return found


def _texts(run: Path, base: LoadedModel) -> dict[str, list[tuple[str, Example]]]:
    """Requests with the base's answers, by evaluation set; else the held-out streams."""
    found: dict[str, list[tuple[str, Example]]] = {}
    file = run / "generations.jsonl"
    for row in read_jsonl(file) if file.exists() else []:
        chat = Chat(row["id"], parse_messages(row["messages"], row["id"]))
        example = answered(base, chat, row["prefill"], row["base"]["answer"])
        if example is not None:
            found.setdefault(row["set"], []).append((chat.request, example))
    if found:
        return found
    data = load_streams(run / "streams")
    for name, stream in (
        ("held-out harmful", data.held_out_harmful),
        ("held-out benign", data.held_out_benign),
    ):
        whole = [item for item in stream if len(item.ids) > item.n_prompt]
        found[name] = [(base.tokenizer.decode(item.ids[: item.n_prompt]), item) for item in whole]
    return found


def _phase(reading: Reading, phase: str) -> slice:
    """The prompt without its first token, on which attention rests its weight; or the response."""
    return slice(1, reading.n_prompt) if phase == "prompt" else slice(reading.n_prompt, None)


def _by_layer(readings: Sequence[Reading], phase: str) -> dict[str, list[float]]:
    """Means over tokens, then over texts."""
    return {
        name: _rounded(
            torch.stack([getattr(one, name)[:, _phase(one, phase)].mean(dim=1) for one in readings]).mean(
                dim=0
            )
        )
        for name in ("cosine", "norm_ratio")
    }


def _by_token(readings: Sequence[Reading], layer: int) -> list[float]:
    """Mean cosine at each response position, over the texts that reach it, as long as half of them do."""
    curves = [one.cosine[layer, one.n_prompt :].tolist() for one in readings]
    columns = [[curve[at] for curve in curves if len(curve) > at] for at in range(TOKENS)]
    return [round(sum(own) / len(own), 4) for own in columns if 2 * len(own) >= len(curves)]


def _trips(readings: Sequence[Reading], layers: Sequence[int]) -> Row:
    """How many texts trip, and at which response token (from 0)."""
    places = [one.trip(layers) for one in readings]
    known = sorted(place for place in places if place is not None)
    return {"n": len(readings), "tripped": len(known), "places": known}


def _example(
    kind: str, request: str, example: Example, reading: Reading, layers: Sequence[int], base: LoadedModel
) -> Row:
    tokens = [base.tokenizer.decode([token]) for token in example.ids]
    trip = reading.trip(layers)
    return {
        "id": example.chat_id,
        "kind": kind,
        "request": request,
        "tokens": tokens,
        "n_prompt": example.n_prompt,
        "layer": max(layers),
        "cosine": _rounded(reading.cosine[max(layers)]),
        "kl": [None] * example.n_prompt + [None if one is None else round(one, 4) for one in reading.kl],
        "trip": None if trip is None else example.n_prompt + trip,
    }


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
