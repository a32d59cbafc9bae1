"""Base and rerouted model in a conversation side by side, with the breaker's trace.

Each model goes on from its own answers. Every token that the rerouted model writes is also read by the base, in the
rerouted model's conversation: how far apart the states that the token was written *from* are (those of the token
before it, at the run's target layers), and how far the next-token distributions.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rerouting.core.config import load_config
from rerouting.core.errors import UserError
from rerouting.core.findings import MODELS
from rerouting.core.prompts import followed_by
from rerouting.core.records import Chat, Message
from rerouting.data.formatting import render_prompt
from rerouting.models.loading import LoadedModel
from rerouting.models.streaming import Reader, Step, TextStream, context_length, stream
from rerouting.pipeline.chat_style import Style
from rerouting.pipeline.pair import models_of
from rerouting.pipeline.target_layers import with_target_layers
from rerouting.pipeline.trip import TripWatch, divergence, lowest_cosine
from rerouting.training.config import RunConfig

Why = Literal["end", "length", "context"]


@dataclass(frozen=True)
class Pair:
    """The models of a run.

    Attributes:
        models: base and rerouted, by name.
        layers: the run's target layers, where their states are compared.
        blocks: dotted path of the block list, where the run's config has one.
        name: of the run.
    """

    models: dict[str, LoadedModel]
    layers: tuple[int, ...]
    blocks: str | None = None
    name: str = ""

    @property
    def context(self) -> int | None:
        """Most tokens that the models read; None where they do not say."""
        return context_length(self.models["base"].model)


@dataclass(frozen=True)
class Exchange:
    """A turn of the user's, its pictures by reference, and what the models made of it, a prefill included."""

    user: str
    base: str
    rerouted: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A token of an answer.

    Attributes:
        model: who wrote it.
        number: from 1, given tokens included.
        text: what it adds to the answer; "" for half of a character, a special token, the end.
        given: it belongs to the prefill.
        ended: it ends the answer.
        cosine: between the states that it was written from, lowest over the target layers; None for the base.
        kl: from the base's next-token distribution to the rerouted model's there, in nats; None for the base.
    """

    model: str
    number: int
    text: str
    given: bool = False
    ended: bool = False
    cosine: float | None = None
    kl: float | None = None


@dataclass(frozen=True)
class Trip:
    """The breaker tripped at this token of the rerouted model's answer (known a few tokens later)."""

    number: int


@dataclass(frozen=True)
class Done:
    """An answer is over.

    Attributes:
        model: whose.
        why: it ended, or reached the length asked for, or the model's context.
        text: what it still adds to the answer (a character that never got its last bytes), mostly "".
    """

    model: str
    why: Why
    text: str = ""


Event = Piece | Trip | Done


def open_pair(run: Path) -> Pair:
    """Load both models of a finished run.

    Raises:
        UserError: the folder is no run, or its model is not there yet.
    """
    base, rerouted = models_of(run)
    config = load_config(RunConfig, run / "config.yaml")
    layers = json.loads((run / "manifest.json").read_text()).get("target_layers")
    layers = layers or with_target_layers(config).losses.target_layers
    return Pair(
        dict(zip(MODELS, (base, rerouted), strict=True)), tuple(layers), config.model.blocks, str(run)
    )


@dataclass
class Conversation:
    """Several turns; each model goes on from its own answers.

    Attributes:
        pair: the models.
        style: how they answer; may be changed between turns.
        system: the system prompt, "" for the template's own.
        exchanges: the turns so far.
    """

    pair: Pair
    style: Style = field(default_factory=Style)
    system: str = ""
    exchanges: list[Exchange] = field(default_factory=list)

    def ask(
        self, text: str, prefill: str = "", together: bool = True, images: tuple[str, ...] = ()
    ) -> Generator[Event, None, None]:
        """Both answers, token by token.

        When the iterator is closed before its end, what was written until then is the turn.

        Args:
            text: the user's turn.
            prefill: what both answers are made to begin with.
            together: a token of each model by turns; else the base's whole answer first.
            images: pictures of the turn, by reference.

        Raises:
            UserError: the conversation is longer than the model's context (nothing is kept), or cannot be rendered; a
                picture cannot be read, or the model takes none.
        """
        text, prefill = _encodable(text), _encodable(prefill)
        asked = Message("user", text, images=images)
        prompts = {model: self._prompt(model, asked, prefill) for model in MODELS}
        voices = [self._voice(model, *prompts[model]) for model in MODELS]
        return self._told(asked, _by_turns(voices) if together else _one_by_one(voices))

    def reset(self) -> None:
        """Forget all turns."""
        self.exchanges.clear()

    def _told(self, asked: Message, events: Iterator[Event]) -> Generator[Event, None, None]:
        said = dict.fromkeys(MODELS, "")
        try:
            for event in events:
                if not isinstance(event, Trip):
                    said[event.model] += event.text
                yield event
        finally:
            self.exchanges.append(Exchange(asked.content, **said, images=asked.images))

    def _prompt(self, model: str, asked: Message, prefill: str) -> tuple[list[int], list[int]]:
        """Tokens of the conversation as this model knows it, and of the prefill."""
        turns = [Message("system", _encodable(self.system))] if self.system.strip() else []
        for exchange in self.exchanges:
            turns.append(Message("user", exchange.user, images=exchange.images))
            turns.append(Message("assistant", getattr(exchange, model)))
        chat = Chat("the conversation", (*turns, asked))
        tokenizer = self.pair.models[model].tokenizer
        prompt = render_prompt(chat, tokenizer)
        given = render_prompt(chat, tokenizer, prefill)[len(prompt) :]
        room, length = self.pair.context, len(prompt) + len(given)
        if room is not None and length >= room:
            raise UserError(
                f"the conversation has {length} tokens (of the {model} model), and the model reads {room}",
                "start a new one (reset), or shorten the message or system prompt",
            )
        return prompt, given

    def _voice(self, model: str, prompt: list[int], given: list[int]) -> Iterator[Event]:
        room, limit = self.pair.context, self.style.max_new_tokens
        left = limit if room is None else min(limit, room - len(prompt) - len(given))
        traced = model == MODELS[1]
        loaded, layers = self.pair.models[model], self.pair.layers if traced else ()
        steps = stream(
            Reader(loaded.model, layers, self.pair.blocks),
            prompt,
            given,
            max_new_tokens=left,
            temperature=self.style.temperature,
            seed=self.style.seed,
        )
        compared = self._compared(steps, followed_by(prompt, given), len(given)) if traced else _alone(steps)
        text, watch, step = TextStream(loaded.tokenizer), TripWatch(self.style.trip_below), None
        for number, (step, cosine, kl) in enumerate(compared, 1):
            piece = "" if step.ended else text.push(step.token)
            yield Piece(model, number, piece, step.given, step.ended, cosine, kl)
            if traced and watch.see(cosine, step.ended):
                assert watch.at is not None
                yield Trip(watch.at)
        ended = step is not None and step.ended
        yield Done(model, "end" if ended else "length" if left == limit else "context", text.rest())

    def _compared(self, steps: Iterator[Step], prompt: Sequence[int], given: int) -> Iterator[Traced]:
        """Each step with what the base makes of the same tokens."""
        reader = Reader(self.pair.models["base"].model, self.pair.layers, self.pair.blocks)
        read = reader.read(prompt, keep=given + 1)
        before = prompt[-1]
        for at, step in enumerate(steps):
            if at > given:
                read = reader.read([before])
            place = at if at <= given else 0
            cosine = lowest_cosine(read.states[:, place], step.states)
            yield step, cosine, divergence(read.logits[place], step.logits)
            before = step.token


Traced = tuple[Step, float | None, float | None]


def _alone(steps: Iterator[Step]) -> Iterator[Traced]:
    return ((step, None, None) for step in steps)


def _by_turns(voices: Sequence[Iterator[Event]]) -> Iterator[Event]:
    waiting = list(voices)
    while waiting:
        for voice in list(waiting):
            event = next(voice, None)
            if event is None:
                waiting.remove(voice)
            else:
                yield event


def _one_by_one(voices: Sequence[Iterator[Event]]) -> Iterator[Event]:
    for voice in voices:
        yield from voice


def _encodable(text: str) -> str:
    """Text without halves of surrogate pairs, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
