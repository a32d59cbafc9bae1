"""Circuit-breaker examples whose loss begins in the middle of the answer, so that the breaker also trips there.

Ours. With the whole response in the loss, most of the gradient says "break at the first token", and an answer that got
past its beginning (by a prefill, or an attack on the first tokens) meets a breaker that has seen little of its middle.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from rerouting.core.errors import UserError
from rerouting.data.formatting import Example


def start_late(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], int]:
    """Mask a share of the examples up to a random depth of the response: prompt and response before it do not count.

    The depth is uniform between the second and the last token of the response. Examples with fewer than two response
    tokens stay as they are.

    Args:
        examples: of the circuit-breaker stream.
        share: of the examples, 0 to 1; exact, by the seed.
        seed: same seed, same examples and depths.

    Returns:
        The examples in order, and how many begin late.

    Raises:
        UserError: a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise UserError(f"data.late_start is {share}", "give the share of examples, from 0 to 1")
    draw = random.Random(f"{seed}/late")
    chosen = set(draw.sample(range(len(examples)), round(share * len(examples))))
    late = [_late(one, draw) if at in chosen else one for at, one in enumerate(examples)]
    return late, sum(one is not other for one, other in zip(late, examples, strict=True))


def _late(example: Example, draw: random.Random) -> Example:
    response = len(example.ids) - example.n_prompt
    if response < 2:
        return example
    start = example.n_prompt + draw.randrange(1, response)
    mask = tuple(flag and at >= start for at, flag in enumerate(example.mask))
    return replace(example, mask=mask)
