"""A monitor: reads one layer while a model generates, and stops an answer at the token that a probe flags.

Source: Zou et al. 2024, harmfulness probing: a generation in which any token is flagged is replaced by a refusal. Works
on any transformers causal language model, rerouted or not, and costs one hook and one small product a token. Three ways
to use it:

    with Monitor(model, probe) as monitor:
        guarded(monitor, tokenizer, prompts, max_new_tokens=128)                        # batched, refusal put in
        model.generate(**inputs, stopping_criteria=[monitor.batch(rows, width)])        # stops; `monitor.flagged`
        model.generate(**inputs, logits_processor=[monitor.ending(end_token)])          # ends the turn instead

A token's state is known when the token is fed back, so an answer stops one token after the flagged one, which is then
taken off: what a reader sees ends before it. (`ending` leaves it, for a logits hook cannot take back; and transformers'
own loop does not feed the very last token of an answer that reaches its limit: `guarded` and `guarded_stream` do.) The
answer's first `skip` tokens are passed over. With beam search rows change places: it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from rerouting.core.errors import UserError
from rerouting.models.generation import end_tokens, generate
from rerouting.models.layers import block_of_layer, decoder_blocks
from rerouting.probes.saved import Probe

REFUSAL = "I'm sorry, but I can't help with that."


class Monitor:
    """Reads a layer of a model while it is entered as a context.

    Attributes:
        flagged: of every prompt that was flagged, by its number, how many new tokens stand before the flagged one.
        highest: the highest score so far of every prompt, by its number; −inf while all tokens are passed over.

    Raises:
        UserError: the probe was trained on states of another size, or of a layer that the model does not have.
    """

    def __init__(self, model: Any, probe: Probe) -> None:
        blocks = decoder_blocks(model, probe.blocks).blocks
        if not 1 <= probe.layer <= len(blocks):
            raise UserError(
                f"the probe reads layer {probe.layer}, the model has {len(blocks)}",
                "use it on the model it was trained on",
            )
        self.model, self.probe = model, probe
        self._block = blocks[block_of_layer(probe.layer)]
        self._handle: Any = None
        self._last = torch.empty(0)
        self._ends = end_tokens(model)
        self._over: set[int] = set()
        self.flagged: dict[int, int] = {}
        self.highest: dict[int, float] = {}

    def __enter__(self) -> Monitor:
        self._handle = self._block.register_forward_hook(self._read)
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()

    def batch(self, rows: Sequence[int], width: int) -> StoppingCriteria:
        """What stops a batch of prompts: `rows` are their numbers, `width` their padded length."""
        self.start(rows)
        return _Stop(self, list(rows), width)

    def start(self, rows: Sequence[int]) -> None:
        """Forget what was seen of these prompts."""
        self.flagged = {row: at for row, at in self.flagged.items() if row not in rows}
        self.highest |= dict.fromkeys(rows, float("-inf"))
        self._over -= set(rows)

    def ending(self, end_token: int) -> LogitsProcessor:
        """What makes flagged answers end their turn, for code that takes no stopping criteria; rows count from 0."""
        return _End(self, end_token)

    def alarms(self, rows: Sequence[int], new_tokens: int, fed: Sequence[int]) -> Tensor:
        """Which of the answers are flagged, by the token that was fed last or before, (B,) bool.

        Args:
            rows: numbers of the prompts in the batch.
            new_tokens: of the answer that have been fed to the model.
            fed: the last of them, of each row; what comes after the end of a turn is padding.
        """
        scores = self._last
        if len(scores) != len(rows):
            raise UserError(
                f"{len(scores)} sequences were read for {len(rows)} prompts",
                "enter the monitor as a context, and use neither beams nor several samples a prompt",
            )
        if new_tokens > 0:
            self._over |= {row for row, token in zip(rows, fed, strict=True) if token in self._ends}
        if new_tokens > self.probe.skip:
            for row, score in zip(rows, scores.tolist(), strict=True):
                if row in self._over:
                    continue
                score = score if math.isfinite(score) else math.inf  # broken numbers are an alarm
                self.highest[row] = max(self.highest.get(row, score), score)
                if score > self.probe.threshold and row not in self.flagged:
                    self.flagged[row] = new_tokens - 1
        return torch.tensor([row in self.flagged for row in rows], device=scores.device)

    def _read(self, module: Any, args: Any, output: Any) -> None:
        states = output if isinstance(output, Tensor) else output[0]
        if states.shape[-1] != self.probe.head.width:
            raise UserError(
                f"the probe reads states of size {self.probe.head.width}, the model's have {states.shape[-1]}",
                "use it on the model it was trained on",
            )
        self._last = self.probe.head.scores(states[:, -1].detach())


class _Stop(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, monitor: Monitor, rows: list[int], width: int) -> None:
        self.monitor, self.rows, self.width = monitor, rows, width

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """Tokens so far (B, T), the newest not yet fed, to what is done (B,)."""
        new = input_ids.shape[1] - self.width - 1
        return self.monitor.alarms(self.rows, new, input_ids[:, -2].tolist()).to(input_ids.device)


class _End(LogitsProcessor):  # type: ignore[misc]
    def __init__(self, monitor: Monitor, end_token: int) -> None:
        self.monitor, self.end_token, self.width = monitor, end_token, 0
        self.before = torch.empty(0, 0, dtype=torch.long)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Tokens so far (B, T), all of them fed, and logits (B, V) to logits."""
        rows = range(len(input_ids))
        if not torch.equal(
            input_ids[:, :-1].cpu(), self.before
        ):  # the first token of another call of generate
            self.width = input_ids.shape[1]
            self.monitor.start(rows)
        self.before = input_ids.cpu()
        alarms = self.monitor.alarms(rows, input_ids.shape[1] - self.width, input_ids[:, -1].tolist())
        only = torch.full_like(scores, float("-inf"))
        only[:, self.end_token] = 0.0
        return torch.where(alarms[:, None].to(scores.device), only, scores)


@dataclass(frozen=True)
class Guarded:
    """A guarded answer.

    Attributes:
        text: the answer, or the refusal.
        flagged: how many of its tokens stand before the flagged one; None where none was.
        highest: highest score of its tokens; None where all were passed over.
    """

    text: str
    flagged: int | None
    highest: float | None


def guarded(
    monitor: Monitor,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    refusal: str = REFUSAL,
    **options: Any,
) -> list[Guarded]:
    """Answers in which a flagged one is replaced by a refusal.

    Args:
        monitor: entered.
        tokenizer: of its model.
        prompts: token ids.
        refusal: said instead; "" to keep what stands before the flagged token.
        options: as `models.generation.generate` takes them.
    """
    monitor.flagged, monitor.highest = {}, {}
    limit = options.pop("max_new_tokens")
    # one more, by which the last one's state is known
    answers = generate(monitor.model, tokenizer, prompts, watch=monitor, max_new_tokens=limit + 1, **options)
    found = []
    for row, tokens in enumerate(answers):
        stop, highest = monitor.flagged.get(row), monitor.highest[row]
        text = tokenizer.decode(tokens[: limit if stop is None else stop], skip_special_tokens=True)
        text = refusal if stop is not None and refusal else text
        found.append(Guarded(text, stop, highest if highest > float("-inf") else None))
    return found
