"""Probes of a run: trained on its own streams, thresholds set on other harmless answers.

Source: Zou et al. 2024, harmfulness probing: trained on the very sets that rerouting is trained on, on every response
token of the model without circuit breakers; one flagged token flags the answer.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rerouting.core.attempt import Attempt
from rerouting.core.config import load_config
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, sha256_file
from rerouting.core.finder import Component, build
from rerouting.core.records import Chat
from rerouting.data.formatting import Example, render_prompt
from rerouting.data.loading import chats_of
from rerouting.models.layers import decoder_blocks
from rerouting.models.loading import LoadedModel
from rerouting.models.trunk import Trunk
from rerouting.pipeline.layers import auc
from rerouting.pipeline.pair import base_of
from rerouting.pipeline.streams import load_streams
from rerouting.pipeline.token_states import token_states
from rerouting.pipeline.unseen import Unseen
from rerouting.probes.config import ProbeConfig
from rerouting.probes.kinds.linear import Linear
from rerouting.probes.saved import Probe
from rerouting.probes.threshold import threshold_for
from rerouting.targets.target import Target
from rerouting.training.config import RunConfig

Row = dict[str, Any]
SWEEP_TOKENS = 6
"""Tokens an answer that layers are compared by."""
CHUNK = 256
"""Answers whose states are held at once."""
PARTS = ("", "layer ", "held-out ")
"""Of each side: trained on, compared by for the choice of the layer, and judged on."""


@dataclass
class Reader:
    """Token states of a model, scored."""

    loaded: LoadedModel
    skip: int
    blocks: str | None = None

    def states(
        self, examples: Sequence[Example], layers: Sequence[int], tokens: int | None, what: str
    ) -> tuple[dict[int, Tensor], Tensor]:
        """See `token_states`."""
        trunk = Trunk(self.loaded.model, max(layers), self.blocks)
        pad_id = self.loaded.tokenizer.pad_token_id
        return token_states(trunk, examples, layers, pad_id=pad_id, skip=self.skip, tokens=tokens, what=what)

    def highest(self, examples: Sequence[Example], probes: Sequence[Probe], what: str) -> list[list[float]]:
        """Each probe's highest score in each answer; −inf where every token is passed over."""
        layers = sorted({probe.layer for probe in probes})
        found: list[list[float]] = [[] for _ in probes]
        for at in range(0, len(examples), CHUNK):  # states of all answers at once would not fit
            part = examples[at : at + CHUNK]
            states, owners = self.states(part, layers, None, what)
            for own, probe in zip(found, probes, strict=True):
                own += peaks(probe.head.scores(states[probe.layer]), owners, len(part)).tolist()
        return found


def peaks(scores: Tensor, owners: Tensor, count: int) -> Tensor:
    """Tokens' scores (n,) and the answers they belong to (n,) to each answer's highest (count,), −inf without any."""
    start = torch.full((count,), float("-inf"))
    return start.scatter_reduce(0, owners, scores, "amax") if len(scores) else start


def train_probes(run: Path, config: ProbeConfig) -> Row:
    """Fit, set thresholds, save under RUN/probes/KIND.

    Returns:
        What RUN/probes/summary.json holds: layers' areas, and for each kind its own, its threshold and false alarms.

    Raises:
        UserError: no run, streams too small, unknown kinds or options, harmless sets that were trained on.
    """
    fitters = {
        kind: build("probes.kinds", Component(kind, config.options.get(kind, {}))) for kind in config.kinds
    }
    if not fitters or set(config.options) - set(fitters):
        raise UserError(
            "no kind of probe, or options for one that was not named", "see `rerouting list probes`"
        )
    base = base_of(run)
    settings = load_config(RunConfig, run / "config.yaml")
    reader = Reader(base, config.skip, settings.model.blocks)
    sides = _sides(run, config)
    depth = len(decoder_blocks(base.model, settings.model.blocks))
    sweep = _sweep(reader, sides, range(1, depth + 1), config.seed) if config.layer is None else {}
    layer = max(sweep, key=lambda one: (round(sweep[one], 3), -one)) if config.layer is None else config.layer
    states = {
        name: reader.states(examples, [layer], config.tokens, f"states of {name} answers")
        for name, examples in sides.items()
    }
    harmless = base_answers(base, _harmless(run, base, config), config.max_new_tokens)
    summary: Row = {"layer": layer, "sweep": sweep, "texts": {name: len(own) for name, own in sides.items()}}
    summary["harmless"] = len(harmless)
    summary["probes"] = {}
    streams = {name: sha256_file(run / "streams" / f"{name}.jsonl") for name in ("circuit_breaker", "retain")}
    made = {"run": str(run), "streams": streams, "false_positives": config.false_positives}
    made |= {"max_new_tokens": config.max_new_tokens}
    harmful, benign = (states[name][0][layer] for name in ("harmful", "harmless"))
    probes = [
        Probe(fitter.fit(harmful, benign, config.seed), kind, layer, config.skip, 0.0, reader.blocks)
        for kind, fitter in fitters.items()
    ]
    counts = {name: len(own) for name, own in sides.items()}
    for probe, own in zip(probes, reader.highest(harmless, probes, "harmless answers"), strict=True):
        highest = [one for one in own if one > -math.inf]
        threshold = threshold_for(highest, config.false_positives)
        about = _areas(probe, states, counts, "held-out ") | {
            "threshold": threshold,
            "false_alarms": sum(one > threshold for one in highest),
            "harmless": len(highest),
        }
        summary["probes"][probe.kind] = about
        whole = replace(probe, threshold=threshold, about=about | made)
        whole.save(run / "probes" / probe.kind.rpartition(":")[2])
    atomic_write(run / "probes" / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def base_answers(base: LoadedModel, chats: Sequence[Chat], max_new_tokens: int) -> list[Example]:
    """The model's own greedy answers, tokenised; empty ones are left out."""
    texts = Target(base, max_new_tokens).answer([Attempt(chat) for chat in chats])
    return [item for chat, text in zip(chats, texts, strict=True) if (item := answered(base, chat, "", text))]


def answered(loaded: LoadedModel, chat: Chat, prefill: str, text: str) -> Example | None:
    """A request with an answer as the model reads it; None for an empty answer."""
    prompt = render_prompt(chat, loaded.tokenizer, prefill)
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        return None
    mask = (False,) * len(prompt) + (True,) * len(ids)
    return Example((*prompt, *ids), len(prompt), mask, chat.id, chat.images)


def _harmless(run: Path, base: LoadedModel, config: ProbeConfig) -> list[Chat]:
    chats = [chat for source in config.harmless for chat in chats_of(source)]
    unseen = Unseen(run, base)(chats)
    if not unseen:
        raise UserError("the run was trained on every harmless request", "name others in `harmless`")
    return unseen


def _sides(run: Path, config: ProbeConfig) -> dict[str, list[Example]]:
    """Different answers of both streams in three parts each; variants of one answer stay together."""
    data = load_streams(run / "streams")
    sides: dict[str, list[Example]] = {}
    for name, stream in (("harmful", data.circuit_breaker), ("harmless", data.retain)):
        different = {
            (item.ids, item.images): item for item in stream if len(item.ids) > item.n_prompt + config.skip
        }
        groups: dict[str, list[Example]] = {}
        for item in different.values():
            groups.setdefault(item.chat_id, []).append(item)
        order = sorted(groups)
        random.Random(config.seed).shuffle(order)
        held = round(config.held_out * len(order) / 2)
        if held < 1 or 2 * held >= len(order):
            raise UserError(
                f"{len(order)} {name} answers of more than {config.skip} tokens are too few",
                "train the run on more data, or lower skip",
            )
        cuts = order[2 * held :][: config.texts], order[:held], order[held : 2 * held]
        for part, ids in zip(PARTS, cuts, strict=True):
            sides[f"{part}{name}"] = [item for one in ids for item in groups[one]]
    return sides


def _sweep(reader: Reader, sides: dict[str, list[Example]], layers: range, seed: int) -> dict[int, float]:
    """Each layer's area under the ROC curve: held-out answers, by the highest score of a linear probe."""
    states = {
        name: reader.states(examples, layers, SWEEP_TOKENS, f"all layers, {name} answers")
        for name, examples in sides.items()
        if not name.startswith("held-out")
    }
    counts = {name: len(examples) for name, examples in sides.items()}
    found = {}
    for layer in layers:
        head = Linear().fit(states["harmful"][0][layer], states["harmless"][0][layer], seed)
        probe = Probe(head, "linear", layer, reader.skip, 0.0)
        found[layer] = _areas(probe, states, counts, "layer ")["auc_answers"]
    return found


def _areas(
    probe: Probe, states: dict[str, tuple[dict[int, Tensor], Tensor]], counts: dict[str, int], part: str
) -> Row:
    """On one part of the answers: by token, and by the highest score of each answer."""
    tokens, answers = [], []
    for side in (f"{part}harmful", f"{part}harmless"):
        by_layer, owners = states[side]
        scores = probe.head.scores(by_layer[probe.layer])
        tokens.append(scores)
        answers.append(peaks(scores, owners, counts[side]))
    return {"auc_tokens": round(auc(*tokens), 4), "auc_answers": round(auc(*answers), 4)}
