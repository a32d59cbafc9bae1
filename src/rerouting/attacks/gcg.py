"""Greedy coordinate gradient: a suffix of tokens that makes the target likely (Zou et al. 2023, arXiv 2307.15043).

Each step takes the gradient of the target's loss over the suffix's one-hot tokens, draws `candidates` suffixes with one
token changed among the `top_k` best replacements of its position, drops those that do not survive being written and
tokenised again, and keeps the best by loss whose whole prompt survives it too. One suffix for several behaviours
(`behaviours`, HarmBench's GCG-M) adds up their gradients, each normalised, and takes the mean of their losses.

What is computed once: keys and values of the tokens before the suffix, and for each batch those of the suffix's tokens
that its candidates share (they stand in order of the changed position). A model for which this gives other losses than
whole forward passes (its cache cannot be repeated, or its positions depend on the length) gets whole ones. Logits are
made for the target alone.

Deviations: the best suffixes of all steps are used, not the last one; a buffer of the best suffixes so far as in
nanoGCG (arXiv 2402.12329), 0 for none as in the paper; several behaviours from the first step on, not one by one.
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
from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.formatting import render_prompt
from rerouting.models.images import input_embeddings
from rerouting.models.memory import in_batches
from rerouting.models.target_rows import target_rows
from rerouting.targets.slots import around_slot, texts_behind, with_suffix
from rerouting.targets.target import Target
from rerouting.targets.target_loss import target_ids


@dataclass(frozen=True)
class Gcg:
    """White-box token search."""

    steps: int = 30
    """Gradient steps."""
    candidates: int = 64
    """Suffixes evaluated in a step (the paper: 512)."""
    top_k: int = 256
    """Replacements considered at each position."""
    length: int = 20
    """Tokens of the suffix, where `init` gives none."""
    init: str | None = None
    """Text that the suffix starts from (the paper: twenty "!"); null for " x", `length` times."""
    buffer: int = 1
    """Best suffixes kept to go on from, all but the first of them drawn at random at first; 0: always from the step's
    best candidate, even a worse one, as in the paper."""
    behaviours: int = 1
    """Behaviours that share one suffix."""
    answers: int = 3
    """Best suffixes that the model is made to answer, each an attempt: a low loss is no success yet (the paper: 1)."""
    batch: int = 16
    """Candidates in one forward pass; halves when memory runs out."""
    stop_below: float = 0.05
    """Loss in nats a token at which the search ends."""
    ascii_only: bool = True
    """Use only tokens of printable ASCII."""

    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"steps": 10, "candidates": 32},
        "paper": {
            "steps": 500,
            "candidates": 512,
            "batch": 256,
            "init": " !" * 20,
            "buffer": 0,
            "answers": 1,
            "stop_below": 0.0,
        },
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 4, "standard": 8, "paper": None}

    def __post_init__(self) -> None:
        if self.buffer < 0 or min(self.behaviours, self.candidates, self.top_k, self.batch, self.answers) < 1:
            raise UserError(
                "gcg's numbers are too small", "behaviours, candidates, top_k, batch, answers: at least 1"
            )

    @property
    def group(self) -> int:
        """Behaviours handed over at once: those that share a suffix."""
        return self.behaviours

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """The best suffixes, best first, for every `behaviours` behaviours.

        Raises:
            UserError: a behaviour has no target, or the suffix nothing to start from.
        """
        parts = [chats[at : at + self.behaviours] for at in range(0, len(chats), self.behaviours)]
        return [attempt for part in parts for attempt in self._attack(target, part, resources)]

    def _attack(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        searches = [_Search(self, target, chat) for chat in chats]
        draw = torch.Generator().manual_seed(resources.seed)
        vocabulary = _Vocabulary(target, self.ascii_only)
        first, *others = self._starts(target.tokenizer, vocabulary, draw)
        # where not even the start reads back, no suffix will: tokenizer and template are at odds
        readers = [search for search in searches if search.reads_back(first)]
        starts = [first, *(one for one in others if all(reader.reads_back(one) for reader in readers))]
        pool = [(_loss(searches, start[None])[0], start) for start in starts]
        pool.sort(key=lambda pair: pair[0])
        best, losses, tried = pool[:1], [pool[0][0]], 0
        for step in range(self.steps):
            current = pool[0][1]
            gradient = sum(_normalised(search.gradient(current)) for search in searches)
            assert isinstance(gradient, Tensor)
            drawn = vocabulary.draw(current, gradient, self.candidates, self.top_k, draw)
            found = _loss(searches, drawn)
            tried += len(drawn)
            for at in sorted(range(len(found)), key=found.__getitem__):
                if all(reader.reads_back(drawn[at]) for reader in readers):
                    _keep(pool, (found[at], drawn[at]), self.buffer)
                    _keep(best, (found[at], drawn[at]), self.answers)
                    break
            losses.append(pool[0][0])
            resources.progress(f"gcg: step {step + 1} of {self.steps}, loss {best[0][0]:.3f}")
            if best[0][0] < self.stop_below:
                break
        trace = {
            "first_loss": round(losses[0], 4),
            "best_loss": round(best[0][0], 4),
            "losses": [round(value, 3) for value in losses],
            "candidates": tried,
        }
        if len(chats) > 1:
            trace["shared_by"] = [chat.id for chat in chats]
        return [
            search.attempt(suffix, trace | {"loss": round(loss, 4)})
            for search in searches
            for loss, suffix in best
        ]

    def _starts(self, tokenizer: Any, vocabulary: _Vocabulary, draw: torch.Generator) -> list[Tensor]:
        """What the buffer holds at first; each survives being written and read again."""
        if self.init is None:
            (mark,) = tokenizer(" x", add_special_tokens=False)["input_ids"][-1:]
            first = [mark] * self.length
        else:
            first = tokenizer(self.init, add_special_tokens=False)["input_ids"]
        starts = [vocabulary.settled(first)]
        if not len(starts[0]):
            raise UserError("gcg's suffix is empty", "give an init with words, or a length of at least 1")
        allowed = vocabulary.allowed.nonzero()[:, 0]
        for _ in range(self.buffer - 1):
            picks = torch.randint(len(allowed), (len(starts[0]),), generator=draw)
            starts.append(vocabulary.settled(allowed[picks].tolist()))
        return [start for start in starts if len(start)]


def _loss(searches: Sequence[_Search], suffixes: Tensor) -> list[float]:
    """Mean over the behaviours of each suffix's loss."""
    if not len(suffixes):
        return []
    found: list[float] = torch.stack([search.losses(suffixes) for search in searches]).mean(dim=0).tolist()
    return found


def _normalised(gradient: Tensor) -> Tensor:
    return torch.nn.functional.normalize(gradient, dim=1)


def _keep(pool: list[tuple[float, Tensor]], found: tuple[float, Tensor], size: int) -> None:
    """Put a new suffix into the pool, best first; without a buffer it always takes the only place."""
    if size == 0:
        pool[:] = [found]
    elif not any(torch.equal(found[1], suffix) for _, suffix in pool):
        pool.append(found)
        pool.sort(key=lambda pair: pair[0])
        del pool[size:]


class _Search:
    """The fixed parts of one behaviour's search, and the prefix's keys and values."""

    def __init__(self, options: Gcg, target: Target, chat: Chat) -> None:
        self.options, self.model, self.tokenizer, self.chat = options, target.model, target.tokenizer, chat
        self.device = target.loaded.device
        self.before, self.after = around_slot(chat, target.tokenizer)
        self.wanted = torch.tensor(target_ids(chat, target.tokenizer), device=self.device)
        self.tail = torch.tensor([*self.after, *self.wanted.tolist()[:-1]], device=self.device)
        rows = target_rows([self.before], [self.wanted.tolist()[:1]], self.device)
        media = rows.media(self.model, [self.before])
        self.head = input_embeddings(self.model, rows.ids, rows.mask, media)  # with the pictures', (1, T, D)
        self.cache = self._prefix()

    def losses(self, suffixes: Tensor) -> Tensor:
        """Target loss of each suffix (B, S) in nats a token, (B,)."""
        return torch.stack(in_batches(self._losses, list(suffixes), self.options.batch))

    def attempt(self, suffix: Tensor, trace: dict[str, Any]) -> Attempt:
        """The prompt with a suffix in its exact tokens."""
        text = self._text(suffix)
        own = {"suffix": text, "reads_back": self.reads_back(suffix)}
        return Attempt(with_suffix(self.chat, text), ids=self._ids(suffix), trace=own | trace)

    def reads_back(self, suffix: Tensor) -> bool:
        """Whether the chat with this suffix, rendered as text, is tokenised to the exact tokens."""
        again = render_prompt(with_suffix(self.chat, self._text(suffix)), self.tokenizer)
        return tuple(again) == self._ids(suffix)

    def _ids(self, suffix: Tensor) -> tuple[int, ...]:
        return (*self.before, *suffix.tolist(), *self.after)

    def _text(self, suffix: Tensor) -> str:
        return texts_behind(self.tokenizer, self.before, [suffix.tolist()])[0]

    def _prefix(self) -> Any:
        """Keys and values of the tokens before the suffix; None where going on from them gives other losses."""
        length = max(2, self.options.length)
        rows = self.wanted.repeat(2, length)[:, :length].clone()
        middle = rows.shape[1] // 2
        rows[1, middle] = (rows[1, middle] - 1).abs()
        try:
            with torch.no_grad():
                start = self._whole(self.tail[None, :0])
                self.cache = self.model(**start, use_cache=True, logits_to_keep=1).past_key_values
            going_on = torch.stack(in_batches(self._losses, list(rows), 2))
        except Exception:  # caches of other kinds are missing, or fail with errors of many types
            return None
        cache, self.cache = self.cache, None
        whole = torch.stack(in_batches(self._losses, list(rows), 2))
        near = 1e-3 if self.model.dtype == torch.float32 else 5e-2
        return cache if torch.allclose(going_on, whole, rtol=near, atol=near) else None

    @torch.no_grad()
    def _losses(self, suffixes: Sequence[Tensor]) -> list[Tensor]:
        rows = torch.stack(list(suffixes)).to(self.device)
        tail = self.tail.expand(len(rows), -1)
        if self.cache is None:
            return list(self._score(**self._whole(torch.cat([rows, tail], dim=1))).cpu())
        differs = (rows != rows[0]).any(dim=0).nonzero()
        shared = int(differs[0]) if len(differs) else rows.shape[1] - 1
        cache = copy.deepcopy(self.cache)
        if shared:
            self.model(input_ids=rows[:1, :shared], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(rows))
        ids = torch.cat([rows[:, shared:], tail], dim=1)
        return list(self._score(input_ids=ids, past_key_values=cache).cpu())

    def _whole(self, behind: Tensor) -> dict[str, Tensor]:
        """Model inputs of the head and tokens behind it (B, T): ids, or embeddings where there are pictures."""
        if not self.before.images:
            head = torch.tensor([self.before], dtype=torch.long, device=self.device).expand(len(behind), -1)
            return {"input_ids": torch.cat([head, behind], dim=1)}
        embedded = self.model.get_input_embeddings()(behind)
        return {"inputs_embeds": torch.cat([self.head.expand(len(behind), -1, -1), embedded], dim=1)}

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
        whole = torch.cat([self.head, soft, table(self.tail[None])], dim=1)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self._score(inputs_embeds=whole).sum(), soft)
        gradient: Tensor = slope[0].float() @ weight.float().T
        return gradient.cpu()


class _Vocabulary:
    """Which tokens a suffix may hold: no special ones, and only printable ASCII if asked for."""

    def __init__(self, target: Target, ascii_only: bool) -> None:
        self.tokenizer = target.tokenizer
        size = target.model.get_input_embeddings().weight.shape[0]
        self.allowed = torch.zeros(size, dtype=torch.bool)
        texts = self._texts([[at] for at in range(min(size, len(self.tokenizer)))])
        for at, text in enumerate(texts):
            self.allowed[at] = bool(text) and (not ascii_only or (text.isascii() and text.isprintable()))
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        self.allowed[[at for at in special if at < size]] = False

    def draw(self, suffix: Tensor, gradient: Tensor, count: int, top_k: int, draw: torch.Generator) -> Tensor:
        """Candidates (B, S), each with one token changed, that survive being written and read again; B may be 0."""
        gradient = gradient.masked_fill(~self.allowed, float("inf"))
        best = (-gradient).topk(min(top_k, int(self.allowed.sum())), dim=1).indices
        rows = suffix.repeat(count, 1)
        places = torch.arange(count) * len(suffix) // count
        if count < len(suffix):
            shift = torch.randint(len(suffix), (1,), generator=draw)
            places = ((places + shift) % len(suffix)).sort().values
        picks = torch.randint(best.shape[1], (count,), generator=draw)
        rows[torch.arange(count), places] = best[places, picks]
        return rows[[at for at, ids in enumerate(self._read_again(rows)) if ids == rows[at].tolist()]]

    def settled(self, ids: Sequence[int]) -> Tensor:
        """Tokens that stay the same when they are written and read again; those of a few rounds of it if none do."""
        found = list(ids)
        for _ in range(4):
            (again,) = self._read_again([found])
            if again == found:
                break
            found = again
        return torch.tensor(found, dtype=torch.long)

    def _read_again(self, rows: Any) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(self._texts(rows), add_special_tokens=False)["input_ids"]
        return found

    def _texts(self, rows: Any) -> list[str]:
        return list(self.tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False))
