"""Greedy coordinate gradient: a suffix of tokens that makes the target likely (Zou et al. 2023, arXiv 2307.15043).

Each step takes the gradient of the target's loss over the suffix's one-hot tokens, draws `candidates` suffixes
with one token changed among the `top_k` best replacements of its position, drops those that do not survive being
written and tokenised again, and keeps the best by loss. The tokens before the suffix are computed once and
their keys and values shared by all candidates. Deviations: the best suffix of all steps is used instead of the
last; a buffer of size one; one behaviour at a time (no universal suffix).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.records import Chat
from rerouting.models.memory import in_batches
from rerouting.targets.slots import around_slot
from rerouting.targets.target import Target
from rerouting.targets.target_loss import target_ids


@dataclass(frozen=True)
class Gcg:
    """White-box token search."""

    steps: int = 60
    """Gradient steps."""
    candidates: int = 64
    """Suffixes evaluated in a step (the paper: 512)."""
    top_k: int = 256
    """Replacements considered at each position."""
    length: int = 20
    """Tokens of the suffix."""
    batch: int = 64
    """Candidates in one forward pass; halves when memory runs out."""
    stop_below: float = 0.05
    """Loss in nats a token at which the search ends."""
    ascii_only: bool = True
    """Use only tokens of printable ASCII."""

    group: ClassVar[int] = 1
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"steps": 10, "candidates": 32},
        "paper": {"steps": 500, "candidates": 512},
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 4, "standard": 12}

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """One optimised suffix a behaviour.

        Raises:
            UserError: a behaviour has no target.
        """
        return [self._attack(target, chat, resources.seed) for chat in chats]

    def _attack(self, target: Target, chat: Chat, seed: int) -> Attempt:
        search = _Search(self, target, chat)
        draw = torch.Generator().manual_seed(seed)
        (mark,) = target.tokenizer(" x", add_special_tokens=False)["input_ids"][-1:]
        suffix = torch.full((self.length,), mark)
        best, loss = suffix, float(search.losses(suffix[None])[0])
        losses, tried = [loss], 0
        for _ in range(self.steps):
            drawn = search.draw(best, search.gradient(best), draw)
            tried += len(drawn)
            found = search.losses(drawn)
            at = int(found.argmin())
            if float(found[at]) < loss:
                best, loss = drawn[at], float(found[at])
            losses.append(loss)
            if loss < self.stop_below:
                break
        text = target.tokenizer.decode(best)
        trace = {
            "suffix": text,
            "first_loss": round(losses[0], 4),
            "best_loss": round(loss, 4),
            "losses": [round(value, 3) for value in losses],
            "candidates": tried,
        }
        ids = (*search.before, *best.tolist(), *search.after)
        return Attempt(chat.with_request(f"{chat.request}{text}"), ids=ids, trace=trace)


class _Search:
    """The fixed parts of one behaviour's search, and the prefix's keys and values."""

    def __init__(self, options: Gcg, target: Target, chat: Chat) -> None:
        self.options, self.model, self.tokenizer = options, target.model, target.tokenizer
        self.device = target.loaded.device
        self.before, self.after = around_slot(chat, target.tokenizer)
        self.wanted = torch.tensor(target_ids(chat, target.tokenizer), device=self.device)
        self.tail = torch.tensor([*self.after, *self.wanted.tolist()[:-1]], device=self.device)
        self.allowed = _allowed(target.tokenizer, options.ascii_only, self.model)
        with torch.no_grad():
            ids = torch.tensor([self.before], device=self.device)
            self.cache = self.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values

    def losses(self, suffixes: Tensor) -> Tensor:
        """Target loss of each suffix (B, S) in nats a token, (B,)."""
        return torch.stack(in_batches(self._losses, list(suffixes), self.options.batch))

    @torch.no_grad()
    def _losses(self, suffixes: Sequence[Tensor]) -> list[Tensor]:
        rows = torch.stack(list(suffixes)).to(self.device)
        ids = torch.cat([rows, self.tail.expand(len(rows), -1)], dim=1)
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(len(rows))
        return list(self._score(input_ids=ids, past_key_values=cache).cpu())

    def _score(self, **inputs: Any) -> Tensor:
        logits = self.model(
            **inputs, use_cache="past_key_values" in inputs, logits_to_keep=len(self.wanted)
        ).logits
        labels = self.wanted.expand(len(logits), -1)
        losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
        return losses.mean(dim=1)

    def gradient(self, suffix: Tensor) -> Tensor:
        """Gradient of the loss over the suffix's one-hot tokens, (S, V)."""
        table = self.model.get_input_embeddings()
        weight = table.weight
        soft = table(suffix.to(self.device)[None]).detach().requires_grad_(True)
        before = table(torch.tensor([self.before], device=self.device))
        whole = torch.cat([before, soft, table(self.tail[None])], dim=1)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self._score(inputs_embeds=whole).sum(), soft)
        gradient: Tensor = slope[0].float() @ weight.float().T
        return gradient.cpu()

    def draw(self, suffix: Tensor, gradient: Tensor, draw: torch.Generator) -> Tensor:
        """Candidates (B, S), each with one token changed, that survive being written and read again."""
        gradient[:, ~self.allowed] = float("inf")
        best = (-gradient).topk(min(self.options.top_k, int(self.allowed.sum())), dim=1).indices
        count = self.options.candidates
        rows = suffix.repeat(count, 1)
        places = torch.arange(count) * len(suffix) // count
        picks = torch.randint(best.shape[1], (count,), generator=draw)
        rows[torch.arange(count), places] = best[places, picks]
        texts = self.tokenizer.batch_decode(rows)
        again = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        kept = [at for at, ids in enumerate(again) if ids == rows[at].tolist()]
        return rows[kept] if kept else suffix[None]


def _allowed(tokenizer: Any, ascii_only: bool, model: Any) -> Tensor:
    """Which tokens a suffix may hold, (V,): no special ones, and only printable ASCII if asked for."""
    size = model.get_input_embeddings().weight.shape[0]
    allowed = torch.zeros(size, dtype=torch.bool)
    texts = tokenizer.batch_decode([[at] for at in range(min(size, len(tokenizer)))])
    for at, text in enumerate(texts):
        allowed[at] = bool(text) and (not ascii_only or (text.isascii() and text.isprintable()))
    allowed[list(set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder))] = False
    return allowed
