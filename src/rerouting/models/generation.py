"""Answers from the full model, batched by length; sampled ones depend on seed and prompt, not on the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from rerouting.core.errors import UserError
from rerouting.core.prompts import images_of, reader_of, takes_pictures
from rerouting.models.layers import unwrapped
from rerouting.models.memory import halved
from rerouting.models.prompt_cache import A_STEP, Beginning, common_beginning, goes_on, read_once, reads_ahead
from rerouting.models.sampling import Sampler, uniform_numbers
from rerouting.pictures.opening import named

STRETCH = 16
"""Tokens after which answers that have ended leave their batch."""


class Watch(Protocol):
    """Looks on while answers are generated, and may stop some of them."""

    def batch(self, rows: Sequence[int], width: int) -> StoppingCriteria:
        """Told before each batch which prompts it has and how wide they are; gives what may stop them."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    token_budget: int | None = None,
    progress: Callable[[int], None] | None = None,
    watch: Watch | None = None,
) -> list[list[int]]:
    """Continue each prompt, greedily or by nucleus sampling.

    Sampling draws one uniform number a token from a stream seeded by `seed`, the prompt and its occurrence among
    equal prompts: other prompts, their order and the batch size change nothing (but for rounding).

    Args:
        model: causal language model, with or without adapters; whole, not truncated.
        tokenizer: gives the padding token.
        prompts: token ids, each of at least one token.
        max_new_tokens: limit of an answer's length.
        do_sample: sample instead of taking the likeliest token.
        temperature: divides the logits; above 0; with `do_sample` only.
        top_p: sample among the likeliest tokens that together reach this probability; with `do_sample` only.
        seed: of the sampling.
        token_budget: most tokens (prompt and answer, padding included) in one batch, halved when memory runs out; None
            for 8,192 on a CPU and 65,536 on a GPU, where a larger batch takes hardly longer.
        progress: called with the number of prompts just answered.
        watch: may stop answers; what follows the token at which it did is meaningless.

    Returns:
        New tokens of each prompt, in the given order, up to the end-of-sequence token and without it.

    Raises:
        UserError: an empty prompt, impossible sampling options, or memory too small for one prompt.
    """
    sampling = _Sampling(do_sample, temperature, top_p, seed)
    _check(prompts, max_new_tokens, sampling)
    keys = [repr(tuple(named(prompt))).encode() for prompt in prompts]

    def batch(rows: list[int], width: int) -> dict[str, Tensor]:
        ids = torch.full((len(rows), width), tokenizer.pad_token_id, dtype=torch.long)
        for row, index in enumerate(rows):
            ids[row, width - len(prompts[index]) :] = torch.tensor(prompts[index])
        images = [image for index in rows for image in images_of(prompts[index])]
        if not images:
            return {"input_ids": ids}
        given = [prompts[index] for index in rows]
        read = reader_of(tokenizer).inputs(given, list(map(len, given)), images, width, left=True)
        return {"input_ids": ids, **read}

    plain = watch is None and not takes_pictures(tokenizer) and reads_ahead(unwrapped(model))
    on_cpu = next(model.parameters()).device.type == "cpu"  # elsewhere reading is nearly free beside writing
    beginning = common_beginning(prompts, A_STEP * max_new_tokens if on_cpu else math.inf) if plain else None
    lengths = [len(prompt) for prompt in prompts]
    options = (max_new_tokens, sampling, token_budget, progress, watch, beginning)
    return _continue(model, tokenizer, lengths, keys, batch, *options)


def generate_from_embeddings(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Tensor],
    *,
    max_new_tokens: int,
    do_sample: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    token_budget: int | None = None,
) -> list[list[int]]:
    """Continue soft prompts: one (T, D) tensor of input embeddings each; all else as in `generate`."""
    sampling = _Sampling(do_sample, temperature, 1.0, seed)
    _check(prompts, max_new_tokens, sampling)
    keys = [prompt.detach().float().cpu().numpy().tobytes() for prompt in prompts]

    def batch(rows: list[int], width: int) -> dict[str, Tensor]:
        dtype = model.get_input_embeddings().weight.dtype
        soft = torch.zeros(len(rows), width, prompts[rows[0]].shape[1], dtype=dtype)
        for row, index in enumerate(rows):
            soft[row, width - len(prompts[index]) :] = prompts[index].detach().to(dtype).cpu()
        return {"inputs_embeds": soft}

    lengths = [len(prompt) for prompt in prompts]
    return _continue(model, tokenizer, lengths, keys, batch, max_new_tokens, sampling, token_budget, None)


def end_tokens(model: Any) -> set[int]:
    """Ids of the tokens that end an answer, from the model's generation config."""
    inner: Any = unwrapped(model)
    ends = inner.generation_config.eos_token_id
    if ends is None:
        return set()
    return set(ends) if isinstance(ends, (list, tuple)) else {int(ends)}


@dataclass(frozen=True)
class _Sampling:
    do_sample: bool
    temperature: float
    top_p: float
    seed: int


def _continue(
    model: Any,
    tokenizer: Any,
    lengths: Sequence[int],
    keys: Sequence[bytes],
    batch: Callable[[list[int], int], dict[str, Tensor]],
    limit: int,
    sampling: _Sampling,
    token_budget: int | None,
    progress: Callable[[int], None] | None,
    watch: Watch | None = None,
    beginning: Beginning | None = None,
) -> list[list[int]]:
    """Answer prompts of any kind, longest first, in left-padded batches that halve when memory runs out.

    Args:
        model: causal language model.
        tokenizer: gives the padding token.
        lengths: positions of each prompt.
        keys: what each prompt's sampling stream is seeded with.
        batch: model inputs of the given prompts, padded on the left to a width.
        limit: most new tokens.
        sampling: how tokens are chosen.
        token_budget: most positions in a batch; None for the device's default.
        progress: called with the number of prompts just answered.
        watch: may stop answers.
        beginning: what some prompts begin with; they have batches of their own, which read it once.
    """
    alike = beginning.rows if beginning else frozenset()
    uniforms = uniform_numbers(keys, sampling.seed, limit) if sampling.do_sample else None
    budget = token_budget or (8192 if next(model.parameters()).device.type == "cpu" else 65536)
    waiting = sorted(range(len(lengths)), key=lambda index: (index not in alike, -lengths[index]))
    answers: dict[int, list[int]] = {}
    with torch.inference_mode(), _evaluating(model):
        while waiting:
            width, read = lengths[waiting[0]], beginning.tokens if beginning and waiting[0] in alike else ()
            rows = waiting[: max(1, budget // (width + limit))]
            rows = [row for row in rows if (row in alike) == bool(read)]
            sampler = None
            if uniforms is not None:
                sampler = Sampler(uniforms[rows], sampling.temperature, sampling.top_p)
            try:
                inputs = batch(rows, width)
                criteria = watch.batch(rows, width) if watch else None
                sizes = [lengths[row] for row in rows]
                new = _batch(model, tokenizer, inputs, sizes, limit, sampler, criteria, read)
            except RuntimeError as error:
                budget = halved(error, len(rows)) * (width + limit)
                continue
            answers.update(zip(rows, new, strict=True))
            waiting = waiting[len(rows) :]
            if progress is not None:
                progress(len(rows))
    return [answers[index] for index in range(len(lengths))]


def _batch(
    model: Any,
    tokenizer: Any,
    inputs: dict[str, Tensor],
    lengths: list[int],
    limit: int,
    sampler: Sampler | None,
    criteria: StoppingCriteria | None = None,
    beginning: Sequence[int] = (),
) -> list[list[int]]:
    """Answer the prompts of one left-padded batch; after every stretch, rows that have ended leave it."""
    device = next(model.parameters()).device
    width = max(lengths)
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, width - length :] = 1
    ends = end_tokens(model)
    given: dict[str, Any] = {name: tensor.to(device) for name, tensor in inputs.items()}
    given["attention_mask"] = mask.to(device)
    if beginning:
        given = read_once(
            model, beginning, given["input_ids"], given["attention_mask"], tokenizer.pad_token_id
        )
    start = width if "input_ids" in inputs else 0  # from embeddings, only the new tokens come back
    leaving = inputs.keys() == {"input_ids"} and criteria is None and not takes_pictures(tokenizer)
    leaving = leaving and goes_on(unwrapped(model))
    rows, answers, done = list(range(len(lengths))), dict[int, list[int]](), 0
    while rows:
        stretch = min(STRETCH, limit - done) if leaving else limit
        output = model.generate(
            **given,
            generation_config=GenerationConfig(
                max_new_tokens=stretch,
                do_sample=False,
                eos_token_id=sorted(ends) or None,
                pad_token_id=tokenizer.pad_token_id,
                return_dict_in_generate=True,
            ),
            logits_processor=LogitsProcessorList([sampler] if sampler is not None else []),
            stopping_criteria=StoppingCriteriaList([criteria] if criteria is not None else []),
        )
        done += stretch
        new = output.sequences[:, start:].tolist()
        answers |= {row: _cut(own, ends) for row, own in zip(rows, new, strict=True)}
        left = [at for at, own in enumerate(new) if ends.isdisjoint(own)] if done < limit else []
        if left:
            given = _without_others(output, left, given["attention_mask"], sampler)
        rows = [rows[at] for at in left]
    return [answers[row] for row in range(len(lengths))]


def _without_others(output: Any, left: list[int], mask: Tensor, sampler: Sampler | None) -> dict[str, Any]:
    """Model inputs that go on with some rows of a batch."""
    ids, cache = output.sequences, output.past_key_values
    if len(left) < len(ids):
        cache.batch_select_indices(torch.tensor(left, device=ids.device))
        ids, mask = ids[left], mask[left]
        if sampler is not None:
            sampler.uniforms = sampler.uniforms[left]
    new = mask.new_ones(len(mask), ids.shape[1] - mask.shape[1])
    return {"input_ids": ids, "attention_mask": torch.cat([mask, new], dim=1), "past_key_values": cache}


def _cut(tokens: list[int], ends: set[int]) -> list[int]:
    stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:stop]


def _check(prompts: Sequence[Any], limit: int, sampling: _Sampling) -> None:
    empty = next((index for index, prompt in enumerate(prompts) if not len(prompt)), None)
    if empty is not None:
        raise UserError(f"prompt {empty} has no tokens", "give at least one token to continue")
    if limit < 1 or sampling.temperature <= 0 or not 0 < sampling.top_p <= 1:
        raise UserError(
            f"cannot generate with max_new_tokens {limit}, temperature {sampling.temperature}, "
            f"top_p {sampling.top_p}",
            "max_new_tokens is at least 1, temperature above 0, top_p above 0 and at most 1",
        )


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Dropout off while answers are generated."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
