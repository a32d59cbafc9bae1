"""Options of one run, as they stand in a recipe. Imports nothing heavy: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rerouting.core.conversion import plain
from rerouting.core.errors import UserError
from rerouting.core.finder import Component
from rerouting.data.config import DataConfig, SourceConfig
from rerouting.models.config import LoraConfig, ModelConfig

SURE_END = 0.5
"""Probability of the end of turn behind the place `stop`, below which it is said that tripped answers may babble on."""


@dataclass
class LossConfig:
    """Which losses, at which layers, with which weights."""

    target_layers: tuple[int, ...] = (10, 20)
    """Layers that are rerouted, from 1 on: layer i is the output of block i − 1, as in `hidden_states`."""
    target_depths: tuple[float, ...] | None = None
    """Target layers as shares of the model's depth, above 0 to 1 ([0.33, 0.66]); null: `target_layers` as given. A
    recipe's own layers are put aside with target_layers []."""
    reroute: Component = field(default_factory=lambda: Component("cosine"))
    """Loss on the circuit-breaker set: a file in losses/reroute, or path/to/mine.py:Name."""
    retain: Component = field(default_factory=lambda: Component("l2"))
    """Loss on the retain set: a file in losses/retain, or path/to/mine.py:Name."""
    schedule: Component = field(default_factory=lambda: Component("linear"))
    """Weights of both over the run: a file in losses/schedules, or path/to/mine.py:Name."""
    retain_layers: Literal["all", "target"] = "all"
    """Layers that are held: every layer up to the last adapted block, or the target layers alone."""
    retain_mean: Literal["tokens", "sequences"] = "tokens"
    """The retain loss is the mean over all tokens that count (the paper), or over sequences, each by its own mean:
    every answer counts the same then, so that a token of a short one counts for more than one of a long one."""
    final_norm: bool = False
    """Hold the final norm of the top block's output in place of that output, as the authors' truncated model does."""
    skip_first_token: bool = False
    """Leave the first token of every sequence out of both losses (its norm can be a hundred times the others')."""

    def check_retain_mean(self, padded: bool) -> None:
        """Refuse a mean over sequences of a loss that is taken over padded positions.

        Raises:
            UserError: both are asked for.
        """
        if padded and self.retain_mean == "sequences":
            raise UserError(
                "a retain loss over padded positions has no mean over sequences",
                "set losses.retain_mean to tokens, or the retain loss's option over to real",
            )

    def what_counts(self) -> dict[str, Any]:
        """As plain values, without `target_depths`: they are `target_layers` by the time that it matters.

        Options that came later are left out while they change nothing: runs from before them can go on.
        """
        values = {name: value for name, value in plain(self).items() if name != "target_depths"}
        if self.retain_mean == "tokens":
            del values["retain_mean"]
        return values


@dataclass
class OptimConfig:
    """The training loop."""

    steps: int = 150
    """Optimiser steps (the paper's T)."""
    batch_size: int = 16
    """Circuit-breaker sequences in one step."""
    retain_batch_size: int | None = None
    """Retain sequences in one step; null for as many (the paper)."""
    micro_batch: int = 8
    """Sequences that pass through the model at once: memory depends on it, the losses do not (dropout's draws do)."""
    take_turns: bool = False
    """Steps on text alone and steps on pictures take turns (paper, multimodal), where a stream has both."""
    pack: bool = True
    """Sequences one behind the other instead of padded, where the model's family allows it (which is tried first)."""
    recompute: bool = False
    """Run blocks again in the backward pass instead of keeping what they computed: less memory, a third more time.
    Switched on without being asked when a single sequence does not fit."""
    offload: bool = False
    """Keep what the backward pass needs in the host's memory: less on the GPU still, and slower."""
    shard: bool = False
    """Share out the frozen weights over the processes (FSDP2), as `accelerate launch --use_fsdp` also asks for."""
    learning_rate: float = 1e-4
    """AdamW's rate."""
    warmup_steps: int = 0
    """Steps over which the rate rises from 0; 0: none (the paper)."""
    decay_from: float | None = None
    """Share of the run after which the rate falls linearly towards 0; null: constant (the paper)."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this norm; null for never (the authors' trainer clips at 1)."""
    log_every: int = 5
    """Steps between rows of metrics.jsonl."""
    eval_every: int = 20
    """Steps between held-out measures (harmful cosine, benign loss)."""
    save_every: int = 25
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """Checkpoints kept; older ones are removed after a newer one is whole."""
    max_benign_rise: float = 1.0
    """Stop when held-out benign loss is above the base model's by more than this (nats a token)."""
    max_final_benign_rise: float | None = None
    """The same at the last step alone, for recipes that allow more on the way; null: max_benign_rise. Like all
    that training measures, it is of the whole adapter, before `lora.strength`."""

    def what_counts(self) -> OptimConfig:
        """The same without what only memory and speed depend on, which a resumed run may change."""
        return replace(self, micro_batch=0, pack=True, recompute=False, offload=False, shard=False)


@dataclass
class SamplingConfig:
    """On-policy completions of the circuit-breaker and retain sets."""

    max_new_tokens: int = 80
    """Length at which a completion is cut."""
    temperature: float = 1.0
    """Sampling temperature; 0 is greedy."""
    top_p: float = 0.95
    """Sample among the likeliest tokens that together reach this probability."""
    token_budget: int | None = None
    """Prompt and new tokens in one batch, halved when memory runs out; null: 8,192 on a CPU, 65,536 on a GPU."""
    seed: int | None = None
    """Seed of the completions; null: the run's. Runs that differ in their own seed alone can share them."""


@dataclass
class EvaluationSet:
    """Prompts that both models answer."""

    name: str
    """Its name in summary.json."""
    source: SourceConfig
    """Where the prompts come from; their own responses are not used."""
    attack: str = "direct"
    """How they are sent: a file in attacks/, or path/to/mine.py:Name."""
    attack_options: dict[str, Any] = field(default_factory=dict)
    """Options of that attack, as its file documents them."""
    limit: int | None = None
    """Prompts taken, spread evenly over the source; null for all."""
    signs: list[str] = field(default_factory=list)
    """Regular expressions, case ignored, that tell an answer with what must not be said; the set is then counted once
    more over the prompts whose base answer has one."""


def bundled_test_sets() -> list[EvaluationSet]:
    """Direct and prefilled harmful requests, benign and borderline ones, of the bundled test split."""

    def bundled(kind: str) -> SourceConfig:
        return SourceConfig("bundled", {"kind": kind, "split": "test"})

    return [
        EvaluationSet("direct", bundled("harmful"), limit=36),
        EvaluationSet("prefill", bundled("harmful"), "prefill", limit=36),
        EvaluationSet("benign", bundled("benign"), limit=40),
        EvaluationSet("borderline", bundled("borderline"), limit=30),
    ]


@dataclass
class EvaluationConfig:
    """What is measured before and after."""

    sets: list[EvaluationSet] = field(default_factory=bundled_test_sets)
    """Evaluation sets; none to skip the evaluation."""
    max_new_tokens: int = 56
    """Length at which an answer is cut."""


@dataclass
class RunConfig:
    """Everything that determines a run."""

    description: str = ""
    """What this recipe is and where its values come from."""
    seed: int = 0
    """Seed of adapters, data order, sampling and dropout."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model that is given circuit breakers."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """The adapters."""
    data: DataConfig = field(default_factory=DataConfig)
    """Circuit-breaker set and retain set."""
    losses: LossConfig = field(default_factory=LossConfig)
    """The objective."""
    training: OptimConfig = field(default_factory=OptimConfig)
    """The loop."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """On-policy completions."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Measures before and after."""
