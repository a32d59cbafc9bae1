"""The model under attack: renders attempts, answers them, and counts what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rerouting.core.attempt import Attempt
from rerouting.core.prompts import Prompt
from rerouting.data.formatting import render_prompt
from rerouting.models.generation import generate, generate_from_embeddings
from rerouting.models.loading import LoadedModel


@dataclass
class Cost:
    """What was spent so far."""

    forward_tokens: int = 0
    """Positions that went through the model, padding included."""


class Target:
    """A loaded model with the settings that its answers are made with.

    Attributes:
        loaded: model, tokenizer, device, dtype. An attack that changes the model puts it back.
        max_new_tokens: length at which an answer is cut.
        cost: counted by a hook on the model's forward pass.
    """

    def __init__(self, loaded: LoadedModel, max_new_tokens: int, token_budget: int | None = None) -> None:
        self.loaded = loaded
        self.max_new_tokens = max_new_tokens
        self.token_budget = token_budget
        self.cost = Cost()

    @property
    def model(self) -> Any:
        """The causal language model, frozen, in evaluation mode."""
        return self.loaded.model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.loaded.tokenizer

    @contextmanager
    def counting(self) -> Iterator[Cost]:
        """Count forward tokens while the block runs."""
        handle = self.model.register_forward_pre_hook(self._count, with_kwargs=True)
        try:
            yield self.cost
        finally:
            handle.remove()

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Leave out what is forwarded in the block: judging is not the attack's cost."""
        before = self.cost.forward_tokens
        try:
            yield
        finally:
            self.cost.forward_tokens = before

    def prompt_ids(self, attempt: Attempt) -> list[int]:
        """The prompt's tokens: the exact ones if the attempt has them, else the rendered chat and prefill."""
        if attempt.ids is not None:
            images = attempt.chat.images
            return Prompt(attempt.ids, images) if images else list(attempt.ids)
        return render_prompt(attempt.chat, self.tokenizer, attempt.prefill)

    def answer(self, attempts: Sequence[Attempt], *, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """The model's answers, without the prefill, in the given order.

        Args:
            attempts: tokens, text or embeddings; mixed freely.
            temperature: 0 is greedy.
            seed: of the sampling; equal attempts are sampled independently.
        """
        options: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": temperature > 0,
            "temperature": temperature or 1.0,
            "seed": seed,
            "token_budget": self.token_budget,
        }
        soft = [at for at, attempt in enumerate(attempts) if attempt.embeddings is not None]
        hard = [at for at, attempt in enumerate(attempts) if attempt.embeddings is None]
        ids: dict[int, list[int]] = {}
        prompts = [self.prompt_ids(attempts[at]) for at in hard]
        ids |= dict(zip(hard, generate(self.model, self.tokenizer, prompts, **options), strict=True))
        if soft:
            tensors = [attempts[at].embeddings for at in soft]
            new = generate_from_embeddings(self.model, self.tokenizer, tensors, **options)
            ids |= dict(zip(soft, new, strict=True))
        return [self.tokenizer.decode(ids[at], skip_special_tokens=True) for at in range(len(attempts))]

    def _count(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get("inputs_embeds")
        if given is None:
            given = kwargs.get("input_ids", args[0] if args else None)
        if isinstance(given, torch.Tensor):
            self.cost.forward_tokens += given.shape[0] * given.shape[1]
