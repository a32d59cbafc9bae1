"""A few harmful examples, a few steps of fine-tuning (tampering).

Sources: Qi et al. 2023, arXiv 2310.03693 (few examples undo safety training); Tamirisa et al. 2024, arXiv 2408.00761
(grids over rates and steps; harmless loss beside, since a ruined model is no success). The attacker has the model
under attack and the package's harmful training prompts: with completions of their own (`completions`), else with the
affirmative openings alone, which is a weak attacker. Deviations: one seed; every number of steps is a stop along one
run of its rate; a model is tampered with anew for each group of behaviours, always in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

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
from rerouting.models.memory import in_batches
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
    """Rows with `prompt` and `completion` to train on instead of the bundled openings."""

    group: ClassVar[int] = 512
    budgets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"lrs": [1e-3], "steps": [10], "examples": 32},
        "paper": {"lrs": [2e-5, 1e-4, 2e-4, 1e-3], "steps": [10, 100, 500], "examples": 256, "batch": 16},
    }
    cases: ClassVar[dict[str, int | None]] = {"quick": 8, "standard": 24, "paper": None}

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """The plain requests at every rate and number of steps; a rate that diverges is a failure from there on.

        Raises:
            UserError: nothing to train on, or no points in the grid.
        """
        if not self.lrs or not self.steps or min(self.steps) < 1:
            raise UserError("finetune has no grid", "give lrs and steps, numbers of at least one step")
        pairs = self._pairs(target.tokenizer)
        harmless = Bundled("benign", "validation", 16).load()
        kept = [whole_pair(chat, target.tokenizer) for chat in harmless]
        before = round(mean_loss(target, kept, self.batch), 4)
        attempts: list[Attempt] = []
        for lr in self.lrs:
            resources.progress(f"finetune: rate {lr:g}, {max(self.steps)} steps")
            with self._tampered(target.model) as parameters:
                optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
                losses: list[float] = []
                draw = torch.Generator().manual_seed(resources.seed)
                for stop in sorted(set(self.steps)):
                    while len(losses) < stop and (not losses or math.isfinite(losses[-1])):
                        chosen = torch.randperm(len(pairs), generator=draw)[: self.batch].tolist()
                        losses.append(_step(target, [pairs[at] for at in chosen], optimiser))
                    trace = {"lr": lr, "steps": stop, "first_loss": losses[0], "last_loss": losses[-1]}
                    if not math.isfinite(losses[-1]):
                        why = f"training diverged at rate {lr:g} after {len(losses)} steps"
                        attempts += [Attempt(chat, trace=trace, failure=why) for chat in chats]
                        continue
                    harm = {
                        "harmless_loss": round(mean_loss(target, kept, self.batch), 4),
                        "harmless_loss_before": before,
                    }
                    plain = [Attempt(chat, trace=trace | harm) for chat in chats]
                    answers = target.answer(plain)
                    attempts += [one.answered(text) for one, text in zip(plain, answers, strict=True)]
        return attempts

    def _pairs(self, tokenizer: Any) -> list[Pair]:
        if self.completions is None:
            chats = [chat for chat in Bundled("harmful", "train").load() if chat.target]
            texts = [chat.target or "" for chat in chats]
        else:
            rows = read_rows(self.completions)
            chats = [Chat(row.where, (Message("user", column(row, "prompt", empty=False)),)) for row in rows]
            texts = [column(row, "completion", empty=False) for row in rows]
        pairs = zip(chats[: self.examples], texts, strict=False)
        return [(render_prompt(chat, tokenizer), encode(tokenizer, text)) for chat, text in pairs]

    @contextmanager
    def _tampered(self, model: Any) -> Iterator[list[torch.nn.Parameter]]:
        """The model with weights that can be trained; afterwards they are the same, bit for bit."""
        if self.method == "lora":
            config = LoraConfig(rank=self.rank, alpha=float(self.rank), dropout=0.0)
            adapted = add_lora(model, config, len(decoder_blocks(model)) - 1)
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


def _step(target: Target, pairs: Sequence[Pair], optimiser: torch.optim.Optimizer) -> float:
    """One step down the mean loss of some examples; returns that loss in nats a token."""

    def part(some: Sequence[Pair]) -> list[float]:
        with torch.enable_grad():
            losses = losses_of(target, some)
            (losses.sum() / len(pairs)).backward()  # type: ignore[no-untyped-call]
        found: list[float] = losses.detach().tolist()
        return found

    losses = in_batches(part, pairs, len(pairs))
    optimiser.step()
    optimiser.zero_grad()
    return sum(losses) / len(losses)
