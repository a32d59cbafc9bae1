"""Options of the attack matrix. Imports nothing heavy: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rerouting.data.config import SourceConfig
from rerouting.models.config import ModelConfig


def _bundled_test() -> list[SourceConfig]:
    return [SourceConfig("bundled", {"kind": "harmful", "split": "test"})]


@dataclass
class AttackConfig:
    """What is attacked, how, and who judges."""

    model: str = "runs/quickstart"
    """Run directory: its base and its rerouted model are attacked, each for itself. With `base`: any model with circuit
    breakers, by folder or hub name."""
    base: ModelConfig | None = None
    """What `model` was made from, when that is no run (GraySwanAI/Llama-3-8B-Instruct-RR: {name:
    meta-llama/Meta-Llama-3-8B-Instruct}); device, dtype and the like hold for both."""
    attacks: list[str] = field(default_factory=lambda: ["all"])
    """Files in attacks/, or path/to/mine.py:Name; "all" is every one that ships with the package."""
    attack_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options by attack, over those of the budget: {gcg: {steps: 50}}."""
    budget: Literal["quick", "standard", "paper"] = "quick"
    """How much an attack may spend: a look, a comparison, or the published settings."""
    cases: dict[str, int | None] = field(default_factory=dict)
    """Behaviours by attack, instead of the budget's number: {gcg: 5}; null for all."""
    sources: list[SourceConfig] = field(default_factory=_bundled_test)
    """Harmful behaviours: the bundled test prompts; for HarmBench {name: harmbench, options: {path: …}}."""
    limit: int | None = None
    """Behaviours taken of each source, spread evenly; null for all."""
    judges: list[str] = field(default_factory=lambda: ["local", "refusal_words", "broken"])
    """Files in judges/, or path/to/mine.py:Name; the first decides the rates, all are recorded."""
    judge_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options by judge."""
    assistant: str = "local"
    """Attacker's chat model for pair, tap and crescendo: a file in targets/assistants/ ("local", "endpoint")."""
    assistant_options: dict[str, Any] = field(default_factory=dict)
    """Its options; the local one is the embedded model unless they say otherwise."""
    translator: str = ""
    """Translator of multilingual: "files", "assistant" or "local" (targets/translators/); "": the bundled file."""
    translator_options: dict[str, Any] = field(default_factory=dict)
    """Its options: {path: translations.jsonl}, or {assistant: endpoint, options: {model: …}}."""
    max_new_tokens: int | None = None
    """Length at which an answer is cut; null for the budget's: quick 64, standard 128, paper 512."""
    seed: int = 0
    """Of everything random in the attacks."""

    @property
    def answer_tokens(self) -> int:
        """Length at which an answer is cut."""
        return self.max_new_tokens or {"quick": 64, "standard": 128, "paper": 512}[self.budget]
