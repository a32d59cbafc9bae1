"""Refusals of forbidden requests, for the retain side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rerouting.core.records import Chat, Message
from rerouting.core.refusal import declines
from rerouting.data.cleaning import Gone, fault
from rerouting.data.domain import Domain
from rerouting.pipeline.making import wording
from rerouting.pipeline.making.asking import Asker, Call
from rerouting.pipeline.making.requests import Made


def refusals_of(
    domain: Domain,
    requests: Sequence[Chat],
    own: Sequence[Chat],
    writer: Asker | None,
    unasked: Sequence[Chat] = (),
) -> Made:
    """Forbidden requests, declined: in the model's own words, else a writer's, else the domain file's.

    Args:
        domain: has the refusals of last resort, and the limits.
        requests: forbidden ones.
        own: the model's own refusals.
        writer: a generator that follows instructions; None for none.
        unasked: those of the requests that need none.
    """
    made = Made([], notes={"the model's own": 0, "generated": 0, "from the domain file": 0})
    by_id = {chat.meta["request_id"]: chat.response or "" for chat in own}
    held = {chat.id for chat in unasked}
    waiting = [chat for chat in requests if chat.id not in by_id and chat.id not in held]
    written = _declined(domain, waiting, writer, made) if writer else {}
    for number, chat in enumerate(requests):
        if chat.id in held:
            continue
        response, origin = by_id.get(chat.id, ""), "the model's own"
        if not response:
            response, origin = written.get(chat.id, ""), "generated"
        if not response and domain.refusals:
            texts = domain.refusals
            response, origin = texts[number % len(texts)], "from the domain file"
        refusal = replace(chat.with_response(response), id=f"{chat.id}-refusal", source="refusal")
        reason, detail = fault(refusal, replace(domain.cleaning, min_response_words=2), "decline")
        if reason:
            made.gone.append(Gone(refusal, reason, detail))
        else:
            made.notes[origin] += 1
            made.kept.append(refusal)
    return made


def _declined(domain: Domain, requests: Sequence[Chat], writer: Asker, made: Made) -> dict[str, str]:
    talks: list[tuple[Message, ...]] = [
        wording.refusal_prompt(chat.request, domain.description) for chat in requests
    ]
    replies = writer.replies(Call(tuple(talks), "", domain.seed + 11, 120, 0.7))
    found = {}
    for chat, reply in zip(requests, replies, strict=True):
        if reply.text is not None and declines(reply.text):
            found[chat.id] = wording.whole_sentences(reply.text.strip())
        else:
            made.gone.append(Gone(chat, "written refusal unusable", reply.failure or "it does not decline"))
    return found
