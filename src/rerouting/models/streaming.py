"""Token by token: a model that reads with a cache, its answer as it is written, and its tokens as text.

`stream` writes the tokens that `generation.generate` writes (greedy, or sampled from the same stream of numbers), and
shows beside each the logits and hidden states that it was chosen from, and the end token too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rerouting.core.errors import UserError
from rerouting.core.prompts import followed_by, images_of
from rerouting.models.generation import end_tokens
from rerouting.models.images import media_of
from rerouting.models.layers import block_of_layer, decoder_blocks, unwrapped
from rerouting.models.sampling import pick, uniform_numbers
from rerouting.pictures.opening import named

_UNFINISHED = "\ufffd"
_LONGEST = 3  # bytes of a character that may still lack its end


@dataclass(frozen=True)
class Read:
    """What a model makes of the last T tokens that it read.

    Attributes:
        logits: of each token's successor, (T, V), float32.
        states: hidden states of the layers that were asked for, (L, T, D), float32.
    """

    logits: Tensor
    states: Tensor


@dataclass(frozen=True)
class Step:
    """One token of an answer.

    Attributes:
        token: its id.
        given: it was put there (a prefill), not chosen.
        ended: it ends the answer.
        logits: what the model would have chosen it from, (V,).
        states: hidden states at the token before it, of the layers that were asked for, (L, D).
    """

    token: int
    given: bool
    ended: bool
    logits: Tensor
    states: Tensor


class Reader:
    """A model in the middle of a text: reads on from where it is, with a key-value cache."""

    def __init__(self, model: Any, layers: Sequence[int] = (), blocks: str | None = None) -> None:
        """Start before the first token.

        Args:
            model: causal language model in evaluation mode.
            layers: whose hidden states are wanted, from 1 on.
            blocks: dotted path of the block list, where it cannot be found alone.

        Raises:
            UserError: the model has no such layer.
        """
        self.model, self._cache = model, None
        found = decoder_blocks(model, blocks).blocks if layers else nn.ModuleList()
        if layers and not 1 <= min(layers) <= max(layers) <= len(found):
            raise UserError(f"the model has layers 1 to {len(found)}", f"not {list(layers)}")
        self._blocks = [found[block_of_layer(layer)] for layer in layers]
        self._states: dict[int, Tensor] = {}
        # M-RoPE families keep how far a picture moves the positions behind it on the model, where others change it
        self._body = unwrapped(model).base_model
        self._moved: Any = None

    @torch.inference_mode()
    def read(self, ids: Sequence[int], keep: int = 1) -> Read:
        """Read the next tokens (at least one, with their pictures); what it makes of the last `keep` comes back.

        PaliGemma reads all of a first call with a picture in both directions: what it makes of given tokens is then no
        prediction.
        """
        device = next(self.model.parameters()).device
        if hasattr(self._body, "rope_deltas"):
            self._body.rope_deltas = self._moved
        hooks = [block.register_forward_hook(self._kept(at, keep)) for at, block in enumerate(self._blocks)]
        try:
            output = self.model(
                torch.tensor([list(ids)], device=device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=keep,
                **media_of(self.model, [ids], [len(ids)], images_of(ids), len(ids)),
            )
        finally:
            for hook in hooks:
                hook.remove()
        self._cache, self._moved = output.past_key_values, getattr(self._body, "rope_deltas", None)
        kept = [self._states[at].to(device) for at in range(len(self._blocks))]
        states = torch.stack(kept) if kept else torch.empty(0, keep, 0)
        return Read(output.logits[0, -keep:].float(), states)

    def _kept(self, at: int, keep: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            self._states[at] = states[0, -keep:].clone().float()

        return hook


def stream(
    reader: Reader,
    prompt: Sequence[int],
    given: Sequence[int] = (),
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[Step]:
    """Read the prompt and write an answer, a token at a time.

    Args:
        reader: a model that has read nothing yet.
        prompt: token ids, at least one; a `Prompt` where there are pictures.
        given: tokens that the answer is made to begin with; they come first, and do not count for the limit.
        max_new_tokens: limit of the answer's length, the end token included.
        temperature: 0 is greedy.
        seed: of the sampling, as in `generate`.

    Yields:
        Every token of the answer, given ones and the end token too.
    """
    assert prompt, "a prompt has at least one token"
    ends = end_tokens(reader.model)
    whole = followed_by(prompt, given)
    key = repr(tuple(named(whole))).encode()
    numbers = uniform_numbers([key], seed, max_new_tokens)[0] if temperature > 0 else None
    read = reader.read(whole, keep=len(given) + 1)
    for at, token in enumerate(given):
        yield Step(token, True, False, read.logits[at], read.states[:, at])
    for at in range(max_new_tokens):
        token = _chosen(read.logits[-1], temperature, None if numbers is None else numbers[at])
        yield Step(token, False, token in ends, read.logits[-1], read.states[:, -1])
        if token in ends:
            return
        if at + 1 < max_new_tokens:
            read = reader.read([token])


def context_length(model: Any) -> int | None:
    """Most tokens that the model reads, by its config; None where it does not say."""
    config: Any = unwrapped(model).config
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length else None


class TextStream:
    """Tokens to text, piece by piece: a character that lacks its last bytes waits for them.

    The pieces together are the tokens decoded at once (for byte-level vocabularies, whatever they hold).
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []  # tokens already told: without them sentencepiece drops a leading blank
        self._waiting: list[int] = []
        self._told = 0

    def push(self, token: int) -> str:
        """The text that is certain now and was not before; often the token's own, sometimes none."""
        self._waiting.append(token)
        text = self._text()
        waiting = len(text) - len(text.rstrip(_UNFINISHED))
        piece = text[self._told : max(self._told, len(text) - min(waiting, _LONGEST))]
        self._told += len(piece)
        if text and not waiting:
            self._before, self._waiting, self._told = self._waiting, [], 0
        return piece

    def rest(self) -> str:
        """What still waits, at the end of the answer: halves of characters."""
        return self._text()[self._told :]

    def _text(self) -> str:
        before = self._decode(self._before)
        text = self._decode(self._before + self._waiting)
        return text[len(before) :] if text.startswith(before) else self._decode(self._waiting)

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""


def _chosen(logits: Tensor, temperature: float, uniform: Tensor | None) -> int:
    """The likeliest token, or the one at a given place of the distribution."""
    if uniform is None:
        return int(logits.argmax())
    chosen = pick((logits[None] / temperature).softmax(dim=-1), uniform.to(logits.device).view(1, 1), 1.0)
    return int(chosen)
