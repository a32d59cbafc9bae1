"""Options of the two data streams. Imports nothing heavy: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class SourceConfig:
    """One data set of a stream."""

    name: str
    """A file in data/sources ("bundled", "chats", "ultrachat", …), or path/to/mine.py:Name."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of that source, as its file documents them."""
    weight: float = 1.0
    """Share of the stream, relative to the other sources' weights; 0 leaves the source out."""
    on_policy: bool = False
    """Replace the responses by completions sampled from the base model itself."""
    prefixed: float = 0.0
    """Share of on-policy completions (0 to 1) that are made to begin with the chat's affirmative target."""
    prefix_ending: str = ""
    """What follows the target in such a completion: "" to go on in mid-sentence, ":\\n\\n" as the attack."""
    max_new_tokens: int | None = None
    """Length at which this source's completions are cut; null for sampling.max_new_tokens."""
    refusals: Literal["keep", "retain"] = "keep"
    """Where on-policy completions without prefix go that decline (core/refusal.py): "keep" them in their stream, or
    move them from the circuit-breaker set to the retain set (where they stay anyway), so that a model that refuses goes
    on refusing."""


@dataclass
class DataConfig:
    """What is rerouted, what is held, and how both become tokens."""

    circuit_breaker: list[SourceConfig] = field(default_factory=list)
    """Harmful chats whose representations are rerouted."""
    retain: list[SourceConfig] = field(default_factory=list)
    """Benign, borderline and refusal chats whose representations are held."""
    held_out_harmful: list[SourceConfig] = field(default_factory=list)
    """Harmful chats that training never sees, for the held-out cosine."""
    held_out_benign: list[SourceConfig] = field(default_factory=list)
    """Benign chats that training never sees, for the held-out loss."""
    evaluation: list[SourceConfig] = field(default_factory=list)
    """Evaluation behaviours, besides those in evaluation.sets, that training items must not resemble."""
    max_bleu: float | None = 0.3
    """Circuit-breaker items with a higher sentence BLEU (0 to 1) against an evaluation behaviour are dropped, and
    retain items that are evaluation prompts; null: no filter."""
    max_call_bleu: float | None = None
    """Circuit-breaker items whose function call (its name and values) has a higher BLEU against an evaluation item's
    call are dropped (paper, agents: 0.1); null: no such filter."""
    max_prompt: int | None = 512
    """Tokens kept of a circuit-breaker prompt; null for all."""
    max_response: int | None = 512
    """Tokens kept of a circuit-breaker response; null for all."""
    max_retain: int | None = 1024
    """Tokens kept of a retain chat, prompt and response together; null for all."""
    cut: Literal["middle", "end"] = "middle"
    """Where a prompt that is too long loses tokens; "end" (the authors') loses the assistant's header."""
    mask: Literal["all", "turn", "response", "calls"] = "all"
    """Tokens of the circuit-breaker set in the loss: prompt and response (the paper's), the assistant's turn (its
    header, where a response is begun or not, and the response), the response, or its function calls alone."""
    retain_mask: Literal["all", "turn", "response", "calls"] = "all"
    """Tokens of the retain set that count for the loss; as `mask`."""
    close: bool = True
    """End every whole response with the template's end-of-turn token (the authors' code leaves it open)."""
    drop_request: float = 0.0
    """Probability that a request is emptied and its response kept, in both streams (paper, Llama-3: 0.5)."""
    late_start: float = 0.0
    """Share of the circuit-breaker examples (0 to 1) whose loss begins only at a random depth of the response."""
    earlier_turns: float = 0.0
    """Share of the circuit-breaker chats (0 to 1) that get exchanges of the retain stream before the request."""
    retain_earlier_turns: float = 0.0
    """The same share of the retain chats."""
    retain_after_harm: float = 0.0
    """Share of the retain chats (0 to 1) that get an exchange of the circuit-breaker stream before the request, so
    that a conversation recovers after a turn that broke; only their last response counts for the loss."""
    contexts: float = 0.0
    """Share of the circuit-breaker chats (0 to 1) whose request gets answers of the retain stream in front of it, as
    HarmBench's contextual behaviours have a text there."""
    retain_contexts: float = 0.0
    """The same share of the retain chats."""
    most_earlier_turns: int = 2
    """Exchanges before one request: from 1 to this many, as far as max_prompt (max_retain) allows."""
