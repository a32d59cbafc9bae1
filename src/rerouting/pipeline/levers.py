"""What may be done to the chats of the two streams before they become tokens; all of it off unless asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rerouting.core.records import Chat
from rerouting.data.config import DataConfig
from rerouting.data.contexts import with_contexts
from rerouting.data.earlier import with_earlier_turns
from rerouting.data.formatting import Example, render_prompt
from rerouting.data.late import start_late
from rerouting.data.template import closing_ids
from rerouting.data.tool_template import response_text

Fits = Callable[[Chat], bool]


@dataclass(frozen=True)
class Levers:
    """The levers of one run.

    Attributes:
        data: how far each is pulled.
        tokenizer: measures lengths.
        seed: of the run.
        report: counts what was changed, by stream.
    """

    data: DataConfig
    tokenizer: Any
    seed: int
    report: dict[str, list[dict[str, Any]]]

    def circuit_breaker(self, harmful: Sequence[Chat], retain: Sequence[Chat]) -> list[Chat]:
        """Harmful chats with texts and harmless exchanges before some of their requests."""
        data, fits = self.data, self._within(self.data.max_prompt, answered=False)
        texts = [chat.response or "" for chat in retain]
        chats, count = with_contexts(harmful, texts, data.contexts, self.seed, fits)
        self._note("circuit_breaker", "with_contexts", data.contexts, count)
        chats, count = with_earlier_turns(
            chats, retain, data.earlier_turns, data.most_earlier_turns, self.seed, fits
        )
        self._note("circuit_breaker", "with_earlier_turns", data.earlier_turns, count)
        return chats

    def retain(self, harmful: Sequence[Chat], retain: Sequence[Chat]) -> list[Chat]:
        """Harmless chats with texts, harmless exchanges and harmful ones before some of their requests."""
        data, fits, seed = self.data, self._within(self.data.max_retain, answered=True), self.seed + 1
        texts = [chat.response or "" for chat in retain]
        chats, count = with_contexts(retain, texts, data.retain_contexts, seed, fits)
        self._note("retain", "with_contexts", data.retain_contexts, count)
        chats, count = with_earlier_turns(
            chats, retain, data.retain_earlier_turns, data.most_earlier_turns, seed, fits
        )
        self._note("retain", "with_earlier_turns", data.retain_earlier_turns, count)
        before = chats
        chats, count = with_earlier_turns(
            before, harmful, data.retain_after_harm, 1, seed + 1, fits, whole=False
        )
        self._note("retain", "after_harm", data.retain_after_harm, count)
        # the harmful response before it is the other stream's business
        mask = "response" if data.retain_mask == "all" else data.retain_mask
        return [
            one if one is other else replace(one, meta={**one.meta, "mask": mask})
            for one, other in zip(chats, before, strict=True)
        ]

    def late(self, examples: Sequence[Example]) -> list[Example]:
        """Circuit-breaker examples, some of which count only from a random depth of the response on."""
        examples, count = start_late(examples, self.data.late_start, self.seed)
        self._note("circuit_breaker", "begin_late", self.data.late_start, count)
        return examples

    def _within(self, limit: int | None, answered: bool) -> Fits:
        """Whether a chat's prompt, or all of it, is at most so many tokens."""
        closing = len(closing_ids(self.tokenizer)) if answered else 0

        def fits(chat: Chat) -> bool:
            answer = response_text(chat, self.tokenizer) if answered else ""
            return limit is None or len(render_prompt(chat, self.tokenizer, answer)) + closing <= limit

        return fits

    def _note(self, stream: str, name: str, share: float, count: int) -> None:
        if share:
            self.report[stream].append({name: count})
