"""A chat model on this machine, loaded when it is first asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rerouting.core.contracts import Reply
from rerouting.core.errors import UserError
from rerouting.core.prompts import takes_pictures
from rerouting.core.records import Chat, Message
from rerouting.data.formatting import render_prompt
from rerouting.data.messages import with_pictures
from rerouting.models.generation import generate
from rerouting.models.hardware import pick_device
from rerouting.models.loading import load_once

_PLAIN = "blank:224x224"
"""A picture that every model takes."""


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
        """Continue each conversation, with one prefill or with each its own; an empty answer is a failure.

        So is a picture that cannot be read, or that the model's processor cannot take.

        Raises:
            UserError: the model takes no pictures, or its template leaves them out.
        """
        loaded = load_once(self.model, self.device)
        prefills = [prefill] * len(conversations) if isinstance(prefill, str) else list(prefill)
        chats = [Chat(f"conversation-{at}", tuple(turns)) for at, turns in enumerate(conversations)]
        prompts = [
            self._prompt(chat, loaded.tokenizer, begun) for chat, begun in zip(chats, prefills, strict=True)
        ]
        answers = generate(
            loaded.model,
            loaded.tokenizer,
            [prompt for prompt in prompts if not isinstance(prompt, Reply)],
            max_new_tokens=max_new_tokens,
            do_sample=temperature > 0,
            temperature=temperature or 1.0,
            top_p=self.top_p,
            seed=seed,
        )
        texts = iter([loaded.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers])
        return [
            prompt if isinstance(prompt, Reply) else _reply(begun, next(texts))
            for prompt, begun in zip(prompts, prefills, strict=True)
        ]

    def _prompt(self, chat: Chat, tokenizer: Any, begun: str) -> list[int] | Reply:
        """Token ids, or the failure of a conversation whose pictures cannot be taken."""
        if chat.images and not takes_pictures(tokenizer):
            raise UserError(
                f"{self.model} takes no pictures, but is asked about one",
                "name a vision-language model with its processor's files, or an endpoint of one",
            )
        try:
            return render_prompt(chat, tokenizer, begun)
        except UserError as error:
            if not chat.images:
                raise
            plain = with_pictures(chat.messages, lambda image: _PLAIN)
            render_prompt(replace(chat, messages=plain), tokenizer, begun)  # is it the model's fault?
            return Reply(None, str(error))


def _reply(begun: str, text: str) -> Reply:
    return Reply(begun + text) if text.strip() else Reply(None, "the model wrote nothing")
