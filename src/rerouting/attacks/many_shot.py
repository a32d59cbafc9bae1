"""Faked turns in which the model has already complied come first (many-shot jailbreaking).

Source: Anil et al. 2024, "Many-shot Jailbreaking": up to 256 faked exchanges with full harmful answers, in an order of
their own for each request. Deviations: the shots are the package's own training requests, answered by the base model
after an affirmative opening (`targets.completions`) and cut to a few sentences; without a base model the openings
alone; as many shots as the model's context holds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.records import Chat, Message
from rerouting.data.formatting import render_prompt
from rerouting.data.sources.bundled import Bundled
from rerouting.targets.completions import restored, sampled
from rerouting.targets.target import Target


@dataclass(frozen=True)
class ManyShot:
    """Black-box in-context examples."""

    shots: int = 16
    """Faked exchanges before the request; fewer where the context has no room for all."""
    pool: int = 64
    """Exchanges that they are drawn from, anew for each behaviour."""
    tokens: int = 64
    """Length of a faked answer, without its opening."""

    group: ClassVar[int] = 16
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"shots": 8, "pool": 16},
        "paper": {"shots": 128, "pool": 192},
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 4, "standard": 16, "paper": None}

    def fit(self, target: Target, resources: Resources) -> dict[str, Tensor]:
        """The base model's answers (`targets.completions`)."""
        return sampled(resources, self.pool, self.tokens)

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """One attempt a chat; a system turn stays in front."""
        answered = restored(resources.fitted)
        pool = answered or [
            chat.with_response(chat.target)
            for chat in Bundled("harmful", "train").load()
            if chat.target and len(chat.messages) == 1
        ]
        return [
            self._attempt(chat, pool, target, resources.seed, "base completions" if answered else "openings")
            for chat in chats
        ]

    def _attempt(self, chat: Chat, pool: Sequence[Chat], target: Target, seed: int, replies: str) -> Attempt:
        """As many of the drawn shots as leave room for an answer."""
        drawn = random.Random(f"{seed}/{chat.id}").sample(list(pool), min(self.shots, len(pool)))
        room = _context(target.model) - target.max_new_tokens
        while True:
            shown = _after(chat, drawn)
            length = len(render_prompt(shown, target.tokenizer))
            if length <= room or not drawn:
                trace = {"shots": len(drawn), "replies": replies, "prompt_tokens": length}
                return Attempt(shown, trace=trace)
            drawn = drawn[: min(len(drawn) - 1, len(drawn) * max(0, room) // length)]


def _after(chat: Chat, shots: Sequence[Chat]) -> Chat:
    turns = [
        turn
        for shot in shots
        for turn in (Message("user", shot.request), Message("assistant", shot.response or ""))
    ]
    system = tuple(turn for turn in chat.messages if turn.role == "system")
    rest = tuple(turn for turn in chat.messages if turn.role != "system")
    return replace(chat, messages=(*system, *turns, *rest))


def _context(model: Any) -> int:
    """Most positions that a model was made for."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)
