"""Completions of forbidden requests, refusals for the retain side, and answers to what is allowed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rerouting.core.attempt import opening_of
from rerouting.core.records import Chat, Message
from rerouting.core.refusal import declines
from rerouting.data.cleaning import Gone, clean, fault
from rerouting.data.domain import Domain
from rerouting.pipeline.making import wording
from rerouting.pipeline.making.asking import Asker, in_calls
from rerouting.pipeline.making.requests import Made
from rerouting.pipeline.making.rules import Completions


@dataclass
class AnswerMaker:
    """Answers the requests of a domain.

    Attributes:
        domain: what is to be made.
        asker: who writes completions and answers.
        rule: tells on-domain completions.
    """

    domain: Domain
    asker: Asker
    rule: Completions

    def completions(self, requests: Sequence[Chat]) -> tuple[Made, list[Chat]]:
        """Forbidden requests with on-domain completions, and the model's own refusals."""
        made = Made([], notes={"sampled": 0, "requests with a completion": 0})
        refused: dict[str, Chat] = {}
        for number in range(self.domain.samples):
            for chat in self._answered(requests, number, made):
                request, own = chat.meta["request_id"], not chat.meta["prefix"]
                if own and declines(chat.response or ""):
                    refused.setdefault(request, replace(chat, id=request))
                    made.gone.append(Gone(chat, "response is a refusal"))
                else:
                    made.kept.append(chat)
        found = clean(made.kept, replace(self.domain.cleaning, balance=None), "comply")
        off = self.rule.off_domain(found.kept)
        made.gone += [*found.gone, *(Gone(chat, off[chat.id]) for chat in found.kept if chat.id in off)]
        made.kept = [chat for chat in found.kept if chat.id not in off]
        made.notes["requests with a completion"] = len({chat.meta["request_id"] for chat in made.kept})
        return made, list(refused.values())

    def allowed(self, requests: Sequence[Chat]) -> Made:
        """Harmless requests with answers that are none of what is forbidden."""
        made = Made([], notes={"sampled": 0})
        answered = self._answered(requests, None, made)
        found = clean(answered, replace(self.domain.cleaning, balance=None), "comply")
        wrong = [chat for chat in found.kept if self.rule.shows(chat.response or "")]
        out = {chat.id for chat in wrong}
        made.gone += [*found.gone, *(Gone(chat, "answer is on-domain") for chat in wrong)]
        made.kept = [chat for chat in found.kept if chat.id not in out]
        return made

    def refusals(self, requests: Sequence[Chat], own: Sequence[Chat], writer: Asker | None) -> Made:
        """Forbidden requests, declined: in the model's own words, else a writer's, else the domain file's.

        Args:
            requests: forbidden ones.
            own: the model's own refusals.
            writer: a generator that follows instructions; None for none.
        """
        made = Made([], notes={"the model's own": 0, "generated": 0, "from the domain file": 0})
        by_id = {chat.meta["request_id"]: chat.response or "" for chat in own}
        waiting = [chat for chat in requests if chat.id not in by_id]
        written = self._declined(waiting, writer, made) if writer else {}
        for number, chat in enumerate(requests):
            response, origin = by_id.get(chat.id, ""), "the model's own"
            if not response:
                response, origin = written.get(chat.id, ""), "generated"
            if not response and self.domain.refusals:
                texts = self.domain.refusals
                response, origin = texts[number % len(texts)], "from the domain file"
            refusal = replace(chat.with_response(response), id=f"{chat.id}-refusal", source="refusal")
            reason, detail = fault(refusal, replace(self.domain.cleaning, min_response_words=2), "decline")
            if reason:
                made.gone.append(Gone(refusal, reason, detail))
            else:
                made.notes[origin] += 1
                made.kept.append(refusal)
        return made

    def targeted(self, chats: Sequence[Chat], requests: Sequence[Chat]) -> list[Chat]:
        """Chats with the affirmative target of their request, which goes by its place among all requests."""
        places = {chat.id: at for at, chat in enumerate(requests)}
        return [
            replace(chat, target=self.target(places[chat.meta.get("request_id", chat.id)]) or None)
            for chat in chats
        ]

    def target(self, number: int) -> str:
        """The affirmative opening of the request of that number."""
        return self._opening(number).strip()

    def _opening(self, number: int) -> str:
        return self.domain.openings[number % len(self.domain.openings)] if self.domain.openings else ""

    def _answered(self, requests: Sequence[Chat], sample: int | None, made: Made) -> list[Chat]:
        """One sample of every request; each second one of the forbidden after its opening."""
        groups: defaultdict[str, list[Chat]] = defaultdict(list)
        for number, chat in enumerate(requests):
            prefixed = sample is not None and (number + sample) % 2 == 1
            groups[self._opening(number) if prefixed else ""].append(chat)
        found: dict[str, Chat] = {}
        for prefix, chats in groups.items():
            talks = [chat.messages for chat in chats]
            seed = self.domain.seed + (sample or 0)
            calls = in_calls(talks, prefix, seed, self.domain.max_new_tokens, self.domain.temperature)
            replies = [reply for call in calls for reply in self.asker.replies(call)]
            for chat, reply in zip(chats, replies, strict=True):
                name = f"{chat.id}-{sample}" if sample is not None else chat.id
                meta = {**chat.meta, "prefix": prefix, "request_id": chat.id}
                text = wording.whole_sentences((reply.text or "").strip())
                answer = replace(chat.with_response(text), id=name, meta=meta)
                if reply.text is None or len(text) <= len(opening_of(prefix)):
                    why = reply.failure or "it breaks off in its first sentence"
                    made.gone.append(Gone(answer, "no answer", why))
                else:
                    made.notes["sampled"] += 1
                    found[chat.id] = answer
        return [found[chat.id] for chat in requests if chat.id in found]

    def _declined(self, requests: Sequence[Chat], writer: Asker, made: Made) -> dict[str, str]:
        talks: list[tuple[Message, ...]] = [
            wording.refusal_prompt(chat.request, self.domain.description) for chat in requests
        ]
        replies = [
            reply
            for call in in_calls(talks, "", self.domain.seed + 11, 120, 0.7)
            for reply in writer.replies(call)
        ]
        found = {}
        for chat, reply in zip(requests, replies, strict=True):
            if reply.text is not None and declines(reply.text):
                found[chat.id] = wording.whole_sentences(reply.text.strip())
            else:
                made.gone.append(
                    Gone(chat, "written refusal unusable", reply.failure or "it does not decline")
                )
        return found


def row_of(chat: Chat, kind: str) -> dict[str, object]:
    """A chat as a line of the sets, in the format of the source `chats`."""
    row: dict[str, object] = {"id": chat.id, "kind": kind, "prompt": chat.request}
    if chat.response is not None:
        row["response"] = chat.response
    if chat.target:
        row["target"] = chat.target
    return row | {"category": chat.category, "form": chat.form}
