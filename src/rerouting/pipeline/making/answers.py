"""Completions of forbidden requests, and answers to what is allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rerouting.core.attempt import opening_of
from rerouting.core.records import Chat, Message
from rerouting.core.refusal import declines
from rerouting.data.cleaning import Gone, clean
from rerouting.data.domain import Writing
from rerouting.pipeline.making import wording
from rerouting.pipeline.making.asking import Asker, Call
from rerouting.pipeline.making.requests import Made
from rerouting.pipeline.making.rules import Completions


@dataclass(frozen=True)
class Prompted:
    """A request on its way to the model.

    Attributes:
        chat: the request.
        sample: which of its completions; None where there is one.
        prefix: what the answer is made to begin with.
    """

    chat: Chat
    sample: int | None = None
    prefix: str = ""

    @property
    def name(self) -> str:
        """The id of the answer."""
        if self.sample is None:
            return self.chat.id
        return f"{self.chat.id}-{'opened-' if self.prefix else ''}{self.sample}"


@dataclass
class AnswerMaker:
    """Answers requests, forbidden ones and others.

    Attributes:
        domain: how completions are written and kept.
        asker: who writes completions and answers.
        rule: tells on-domain completions.
        turns: what is sent for a request.
    """

    domain: Writing
    asker: Asker
    rule: Completions
    turns: Callable[[Chat], tuple[Message, ...]] = field(default=lambda chat: chat.messages)

    def completions(self, requests: Sequence[Chat], unasked: Sequence[Chat] = ()) -> tuple[Made, list[Chat]]:
        """Forbidden requests with on-domain completions, plain and opened ones, and the model's own refusals.

        Of `unasked`, some of the requests, none are made: held-out requests are tested without.
        Plain completions are asked for again where too few were on-domain: the breaker learns plain requests from
        plain completions alone, and a small model evades many of them.
        """
        made = Made([], notes={"sampled": 0, "plain": 0, "opened": 0, "requests with a completion": 0})
        refused: dict[str, Chat] = {}
        plain: Counter[str] = Counter()
        held = {one.id for one in unasked}
        places = [(at, one) for at, one in enumerate(requests) if one.id not in held]
        for number in range(max(self.domain.samples, self.domain.opened)):
            asked = [one for _, one in places if plain[one.id] < self.domain.plain]
            prompts = [Prompted(one, number) for one in asked if number < self.domain.samples]
            if number < self.domain.opened:
                prompts += [Prompted(one, number, self._opening(at + number)) for at, one in places]
            new = self._on_domain(self._answered(prompts, made), made, refused)
            plain.update(chat.meta["request_id"] for chat in new if not chat.meta["prefix"])
            made.kept += new
        found = clean(made.kept, replace(self.domain.cleaning, balance=None), "comply")
        made.kept, made.gone = found.kept, made.gone + found.gone
        opened = sum(bool(chat.meta["prefix"]) for chat in made.kept)
        made.notes |= {"plain": len(made.kept) - opened, "opened": opened}
        made.notes["requests with a completion"] = len({chat.meta["request_id"] for chat in made.kept})
        return made, list(refused.values())

    def _on_domain(self, chats: Sequence[Chat], made: Made, refused: dict[str, Chat]) -> list[Chat]:
        """The completions that are what must not be; the others go, plain refusals to `refused` too."""
        left = []
        for chat in chats:
            if not chat.meta["prefix"] and declines(chat.response or ""):
                refused.setdefault(chat.meta["request_id"], replace(chat, id=chat.meta["request_id"]))
                made.gone.append(Gone(chat, "response is a refusal"))
            else:
                left.append(chat)
        found = clean(left, replace(self.domain.cleaning, balance=None), "comply")
        off = self.rule.off_domain(found.kept)
        made.gone += [*found.gone, *(Gone(chat, off[chat.id]) for chat in found.kept if chat.id in off)]
        return [chat for chat in found.kept if chat.id not in off]

    def allowed(self, requests: Sequence[Chat]) -> Made:
        """Harmless requests with answers that are none of what is forbidden, some of them after an opening."""
        made = Made([], notes={"sampled": 0, "opened": 0})
        every = (
            round((self.domain.plain + self.domain.opened) / self.domain.opened) if self.domain.opened else 0
        )
        prompts = [
            Prompted(one, None, self._opening(at) if every and at % every == every - 1 else "")
            for at, one in enumerate(requests)
        ]
        answered = self._answered(prompts, made)
        found = clean(answered, replace(self.domain.cleaning, balance=None), "comply")
        wrong = [chat for chat in found.kept if self.rule.shows(chat.response or "")]
        out = {chat.id for chat in wrong}
        made.gone += [*found.gone, *(Gone(chat, "answer is on-domain") for chat in wrong)]
        made.kept = [chat for chat in found.kept if chat.id not in out]
        made.notes["opened"] = sum(bool(chat.meta["prefix"]) for chat in made.kept)
        return made

    def targeted(
        self, chats: Sequence[Chat], requests: Sequence[Chat], openings: Sequence[str] = ()
    ) -> list[Chat]:
        """Chats with the affirmative target of their request, which goes by its place among all requests.

        Args:
            chats: those that get one.
            requests: all forbidden ones.
            openings: targets to give out; none: those of the domain.
        """
        places = {chat.id: at for at, chat in enumerate(requests)}
        found = []
        for chat in chats:
            opening = self._opening(places[chat.meta.get("request_id", chat.id)], openings)
            found.append(replace(chat, target=opening.strip() or None))
        return found

    def _opening(self, number: int, openings: Sequence[str] = ()) -> str:
        """The affirmative opening of the request of that number."""
        given = openings or self.domain.openings
        return given[number % len(given)] if given else ""

    def _answered(self, prompts: Sequence[Prompted], made: Made) -> list[Chat]:
        """What the model says to each, all of one sample; what is no answer goes."""
        found: list[Chat] = []
        call = Call(
            tuple(self.turns(one.chat) for one in prompts),
            tuple(one.prefix for one in prompts),
            self.domain.seed + (prompts[0].sample or 0 if prompts else 0),
            self.domain.max_new_tokens,
            self.domain.temperature,
        )
        for one, reply in zip(prompts, self.asker.replies(call), strict=True):
            text = wording.whole_sentences((reply.text or "").strip())
            meta = {**one.chat.meta, "prefix": one.prefix, "request_id": one.chat.id}
            answer = replace(one.chat.with_response(text), id=one.name, meta=meta)
            if reply.text is None or len(text) <= len(opening_of(one.prefix)):
                why = reply.failure or "it breaks off in its first sentence"
                made.gone.append(Gone(answer, "no answer", why))
            else:
                made.notes["sampled"] += 1
                found.append(answer)
        return found


def row_of(chat: Chat, kind: str) -> dict[str, object]:
    """A chat as a line of the sets, in the format of the source `chats`; with a picture, of `pictured`."""
    row: dict[str, object] = {"id": chat.id, "kind": kind}
    if chat.images:
        row["image"] = chat.meta.get("image", list(chat.images))
    row["prompt"] = chat.request
    if chat.response is not None:
        row["response"] = chat.response
    if chat.target:
        row["target"] = chat.target
    return row | {"category": chat.category, "form": chat.form}
