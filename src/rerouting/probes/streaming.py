"""A guarded answer as it is written: every token is held back until its own state was read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rerouting.models.streaming import Reader, TextStream, stream
from rerouting.probes.monitor import REFUSAL
from rerouting.probes.saved import Probe


def guarded_stream(
    model: Any, tokenizer: Any, probe: Probe, prompt: Sequence[int], *, refusal: str = REFUSAL, **options: Any
) -> Iterator[str]:
    """Pieces of text, one token late; from the flagged token on the refusal, on a line of its own, and nothing more.

    Args:
        model: causal language model in evaluation mode.
        tokenizer: its tokenizer.
        probe: read at its layer; the answer's first `skip` tokens are passed over.
        prompt: token ids.
        refusal: said instead of the rest; "" to stop without a word.
        options: as `models.streaming.stream` takes them: max_new_tokens, temperature, seed.
    """
    text = TextStream(tokenizer)
    told, held = 0, None
    limit = options.pop("max_new_tokens")
    reader = Reader(model, [probe.layer], probe.blocks)
    for step in stream(reader, prompt, max_new_tokens=limit + 1, **options):
        if held is not None:
            score = float(probe.head.scores(step.states[0]))  # of the token that is held back
            if told >= probe.skip and not score <= probe.threshold:
                yield text.rest() + (f"\n{refusal}" if told and refusal else refusal)
                return
            told += 1
            yield text.push(held)
        if step.ended or told == limit:
            break
        held = step.token
    yield text.rest()
