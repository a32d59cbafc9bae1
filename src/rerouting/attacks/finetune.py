"""A few harmful examples, a few steps of fine-tuning (tampering).

Sources: Qi et al. 2023, arXiv 2310.03693 (10 to 100 full harmful completions undo safety training); Tamirisa et al.
2024, arXiv 2408.00761 (grids over rates and steps; harmless loss beside, since a ruined model is no success). The
attacker has the model under attack, the base model, and the package's harmful training prompts. Deviations: the
completions are the base model's own, after an affirmative opening (or a file's, by `completions`; without a base
model the openings alone, which teach a model to open and no more), and end no turn; one seed; every number of steps
is a stop along one run of its rate; a model is tampered with anew for each group of behaviours, always in the same
way; all weights are trained in float32 copies, since a bfloat16 weight swallows small steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Resources
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.formatting import encode, render_prompt
from rerouting.data.reading import column, read_rows
from rerouting.data.sources.bundled import Bundled
from rerouting.models.config import LoraConfig
from rerouting.models.layers import decoder_blocks
from rerouting.models.lora import add_lora
from rerouting.models.memory import halved
from rerouting.models.target_rows import finite
from rerouting.targets.completions import restored, sampled
from rerouting.targets.target import Target
from rerouting.targets.target_loss import Pair, losses_of, mean_loss, whole_pair


@dataclass(frozen=True)
class Finetune:
    """White-box training against the defence."""

    method: Literal["lora", "full"] = "lora"
    """Adapters in every linear layer, or all weights (which are kept on the CPU meanwhile)."""
    lrs: list[float] = field(default_factory=lambda: [2e-4, 1e-3])
    """Learning rates of AdamW; each starts from the model under attack."""
    steps: list[int] = field(default_factory=lambda: [10, 40])
    """Numbers of steps after which behaviours are tried."""
    examples: int = 64
    """Harmful examples that are trained on."""
    batch: int = 8
    """Examples a step; taken in parts when memory runs out."""
    rank: int = 16
    """Of the adapters."""
    completions: str | None = None
    """Rows with `prompt` and `completion` to train on instead of what the base model writes."""
    tokens: int = 64
    """Length of the base model's completions, without their openings."""

    group: ClassVar[int] = 512
    tampers: ClassVar[bool] = True
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"lrs": [1e-3], "steps": [10], "examples": 32},
        "paper": {"lrs": [2e-5, 1e-4, 2e-4, 1e-3], "steps": [10, 100, 500], "examples": 256, "batch": 16},
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 8, "standard": 24, "paper": None}

    def __post_init__(self) -> None:
        if not self.lrs or min([*self.steps, self.examples, self.batch, self.rank, len(self.steps)]) < 1:
            raise UserError(
                "finetune has nothing to do", "give lrs, and steps, examples, batch, rank of at least 1"
            )

    def fit(self, target: Target, resources: Resources) -> dict[str, Tensor]:
        """The base model's completions (`targets.completions`), where they are what is trained on."""
        return {} if self.completions else sampled(resources, self.examples, self.tokens)

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """The plain requests at every rate and number of steps; a rate that diverges is a failure from there on.

        Raises:
            UserError: nothing to train on, or no points in the grid.
        """
        answered = restored(resources.fitted)
        pairs = self._pairs(target.tokenizer, answered)
        source = "file" if self.completions else "base completions" if answered else "openings"
        harmless = Bundled("benign", "validation", 16).load()
        kept = [whole_pair(chat, target.tokenizer) for chat in harmless]
        common = {
            "trained_on": source,
            "examples": len(pairs),
            "harmless_loss_before": finite(mean_loss(target, kept, self.batch)),
        }
        attempts: list[Attempt] = []
        for lr in self.lrs:
            resources.progress(f"finetune: rate {lr:g}, {max(self.steps)} steps on {len(pairs)} examples")
            with self._tampered(target.model, resources.seed) as weights:
                training = _Training(target, pairs, self.batch, lr, weights, resources.seed)
                attempts += self._stops(training, chats, kept, common | {"lr": lr})
                del training  # before the next rate's copies of the weights are made
        return attempts

    def _stops(
        self, training: _Training, chats: Sequence[Chat], kept: Sequence[Pair], common: dict[str, Any]
    ) -> list[Attempt]:
        """The plain requests after every number of steps of one rate."""
        target, attempts = training.target, list[Attempt]()
        for stop in sorted(set(self.steps)):
            training.run(stop)
            harm = mean_loss(target, kept, self.batch) if training.finite else math.nan
            trace = common | {"steps": stop, **training.trace, "harmless_loss": finite(harm)}
            trace["part"] = f"rate {common['lr']:g}, {stop} steps"
            trace["beside"] = f"harmless loss {common['harmless_loss_before'] or math.nan:.2f} → {harm:.2f}"
            tried = [Attempt(chat, trace=trace) for chat in chats]
            if math.isfinite(harm):
                answers = target.answer(tried)
                attempts += [one.answered(text) for one, text in zip(tried, answers, strict=True)]
            else:
                why = f"training diverged at rate {common['lr']:g} after {len(training.losses)} steps"
                attempts += [replace(one, failure=why) for one in tried]
        return attempts

    def _pairs(self, tokenizer: Any, answered: Sequence[Chat]) -> list[Pair]:
        """What is trained on: a file's completions, else the base model's, else the bundled openings."""
        if self.completions is not None:
            rows = read_rows(self.completions)
            chats = [Chat(row.where, (Message("user", column(row, "prompt", empty=False)),)) for row in rows]
            texts = [column(row, "completion", empty=False) for row in rows]
        else:
            chats = list(answered) or [chat for chat in Bundled("harmful", "train").load() if chat.target]
            texts = [chat.response or chat.target or "" for chat in chats]
        pairs = zip(chats[: self.examples], texts, strict=False)
        return [(render_prompt(chat, tokenizer), encode(tokenizer, text)) for chat, text in pairs]

    @contextmanager
    def _tampered(self, model: Any, seed: int) -> Iterator[list[torch.nn.Parameter]]:
        """The model with weights that can be trained; afterwards they are the same, bit for bit."""
        if self.method == "lora":
            config = LoraConfig(rank=self.rank, alpha=float(self.rank), dropout=0.0)
            adapted = add_lora(model, config, len(decoder_blocks(model)) - 1, seed=seed)
            try:
                yield [item for item in adapted.parameters() if item.requires_grad]
            finally:
                adapted.unload()
            return
        originals = [(item, item.detach().cpu().clone()) for item in model.parameters()]
        try:
            model.requires_grad_(True)
            yield list(model.parameters())
        finally:
            model.requires_grad_(False)
            with torch.no_grad():
                for item, original in originals:
                    item.copy_(original)
                    item.grad = None


class _Training:
    """AdamW on float32 copies of a model's weights (B examples a step, drawn by seed), and its losses so far."""

    def __init__(
        self,
        target: Target,
        pairs: Sequence[Pair],
        batch: int,
        lr: float,
        weights: Sequence[torch.nn.Parameter],
        seed: int,
    ) -> None:
        self.target, self.pairs, self.batch = target, pairs, batch
        self.weights = weights
        self.copies = [item.detach().float() for item in weights]  # a float32 weight is its own copy
        self.optimiser = torch.optim.AdamW(self.copies, lr=lr, weight_decay=0.0)
        self.draw = torch.Generator().manual_seed(seed)
        self.losses: list[float] = []

    @property
    def finite(self) -> bool:
        """Whether the last loss is a number."""
        return math.isfinite(self.losses[-1])

    @property
    def trace(self) -> dict[str, float | None]:
        """First and last loss for the record."""
        return {"first_loss": finite(self.losses[0]), "last_loss": finite(self.losses[-1])}

    def run(self, stop: int) -> None:
        """Train until there were so many steps, or the loss is no number any more."""
        while len(self.losses) < stop and (not self.losses or self.finite):
            chosen = torch.randperm(len(self.pairs), generator=self.draw)[: self.batch].tolist()
            self.losses.append(self._step([self.pairs[at] for at in chosen]))

    def _step(self, pairs: Sequence[Pair]) -> float:
        """One step down the mean loss of some examples; returns that loss in nats a token."""
        size, losses = len(pairs), list[float]()
        while len(losses) < len(pairs):
            try:
                losses += self._backward(pairs[len(losses) :][:size], len(pairs))
            except (RuntimeError, MemoryError) as error:
                size, losses = halved(error, size), []
                self._clear()  # what memory ran out on may have left half of its gradients
        for item, copy in zip(self.weights, self.copies, strict=True):
            copy.grad = None if item.grad is None else item.grad.float()
        self.optimiser.step()
        with torch.no_grad():
            for item, copy in zip(self.weights, self.copies, strict=True):
                item.copy_(copy)
        self._clear()
        return sum(losses) / len(losses)

    def _backward(self, pairs: Sequence[Pair], total: int) -> list[float]:
        with torch.enable_grad():
            losses = losses_of(self.target, pairs)
            (losses.sum() / total).backward()  # type: ignore[no-untyped-call]
        found: list[float] = losses.detach().tolist()
        return found

    def _clear(self) -> None:
        for item, copy in zip(self.weights, self.copies, strict=True):
            item.grad = copy.grad = None
