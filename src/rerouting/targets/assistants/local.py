"""A chat model on this machine, loaded when it is first asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rerouting.core.contracts import Reply
from rerouting.core.records import Chat, Message
from rerouting.data.formatting import render_prompt
from rerouting.models.generation import generate
from rerouting.models.hardware import pick_device
from rerouting.models.loading import load_once


@dataclass(frozen=True)
class Local:
    """By name, as `model.name` of a recipe."""

    many_prefills: ClassVar[bool] = True

    model: str = "smollm2-135m"
    """Embedded name, folder, GGUF file or hub name of a chat model."""
    device: str = "auto"
    """Device; auto: cuda when there is one."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that together reach this probability."""

    @property
    def batch(self) -> int:
        """Conversations that are best sent together: a GPU answers hundreds in the time that it needs for one."""
        return 256 if pick_device(self.device).type == "cuda" else 32

    def reply(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        prefill: str | Sequence[str] = "",
    ) -> list[Reply]:
        """Continue each conversation, with one prefill or with each its own; an empty answer is a failure."""
        loaded = load_once(self.model, self.device)
        prefills = [prefill] * len(conversations) if isinstance(prefill, str) else list(prefill)
        prompts = [
            render_prompt(Chat(f"conversation-{at}", tuple(turns)), loaded.tokenizer, begun)
            for at, (turns, begun) in enumerate(zip(conversations, prefills, strict=True))
        ]
        answers = generate(
            loaded.model,
            loaded.tokenizer,
            prompts,
            max_new_tokens=max_new_tokens,
            do_sample=temperature > 0,
            temperature=temperature or 1.0,
            top_p=self.top_p,
            seed=seed,
        )
        texts = [loaded.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
        nothing = Reply(None, "the model wrote nothing")
        return [
            Reply(begun + text) if text.strip() else nothing
            for begun, text in zip(prefills, texts, strict=True)
        ]
