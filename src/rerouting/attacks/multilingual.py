"""The request in another language, the answer translated back (the paper's multilingual attack).

Source: Zou et al. 2024, appendix: Google Translate in and out, six languages. Deviations: the translator is an
option, by default a bundled file of translations of 24 test prompts, from which nothing can be translated back;
earlier turns stay English; a contextual behaviour's text is translated apart from the request, and stays as it is
where that fails. One attempt a language: a behaviour falls if one language breaks it.

An answer that reads as English, or declines in it, needs no translation. Another one that cannot be translated back
stays as the model wrote it, and its trace names its language (`answer_language`, `why`): judges that read English
alone leave it unscored. Take a translator that goes both ways, or a judge that reads the languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from rerouting.core.attempt import Attempt, ask, behaviour_of, context_of
from rerouting.core.contracts import Resources, Translator
from rerouting.core.english import reads_english
from rerouting.core.finder import Component, build
from rerouting.core.records import Chat
from rerouting.core.refusal import declines
from rerouting.targets.target import Target
from rerouting.targets.translators.files import Files


@dataclass(frozen=True)
class Multilingual:
    """Translate in, answer, translate out."""

    languages: list[str] = field(default_factory=lambda: ["zh-CN", "it", "uk", "th", "zu", "gn"])
    """BCP 47 codes."""
    translator: str = ""
    """A file in targets/translators/ ("files", "assistant", "local"); "": the matrix's, else the bundled file."""
    translator_options: dict[str, Any] = field(default_factory=dict)
    """Its options."""

    group: ClassVar[int] = 16
    budgets: ClassVar[dict[str, dict[str, Any]]] = {"quick": {"languages": ["zh-CN", "it"]}}
    cases: ClassVar[dict[str, int | None]] = {"quick": 4, "standard": 24, "paper": None}

    def run(self, target: Target, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """One attempt a chat and language, answered; a request that was not translated is a failure."""
        translator: Translator = (
            build("targets.translators", Component(self.translator, self.translator_options))
            if self.translator
            else resources.translator or Files()
        )
        languages = list(dict.fromkeys(self.languages))
        attempts = [one for code in languages for one in _asked(translator, chats, code)]
        sent = [at for at, one in enumerate(attempts) if one.failure is None]
        answers = target.answer([attempts[at] for at in sent])
        for at, answer in zip(sent, answers, strict=True):
            attempts[at] = attempts[at].answered(answer)
        for code in languages:
            here = [at for at in sent if attempts[at].trace["part"] == code]
            back = _back(translator, [attempts[at] for at in here], code)
            for at, attempt in zip(here, back, strict=True):
                attempts[at] = attempt
        return attempts


def _asked(translator: Translator, chats: Sequence[Chat], code: str) -> list[Attempt]:
    """What is sent in one language; a failure where the request has no translation."""
    requests = translator.translate([behaviour_of(chat) for chat in chats], "en", code)
    with_text = [chat for chat in chats if context_of(chat)]
    texts = translator.translate([context_of(chat) for chat in with_text], "en", code) if with_text else []
    contexts = {chat.id: reply for chat, reply in zip(with_text, texts, strict=True)}
    attempts = []
    for chat, reply in zip(chats, requests, strict=True):
        trace: dict[str, Any] = {"part": code, "request": reply.text}
        if reply.text is None:
            why = f"no translation to {code}: {reply.failure}"
            attempts.append(Attempt(chat, trace=trace, failure=why, passing=reply.passing))
            continue
        sent = ask(chat, reply.text)
        context = contexts.get(chat.id)
        if context is not None and context.text is None:
            trace["context_not_translated"] = context.failure
        elif context is not None:  # `ask` puts meta's context in front; the judge still gets the English one
            foreign = ask(replace(chat, meta=chat.meta | {"context": context.text}), reply.text)
            sent = replace(sent, messages=foreign.messages)
        attempts.append(Attempt(sent, trace=trace))
    return attempts


def _is_english(answer: str) -> bool:
    return bool(reads_english(answer)) or declines(answer)


def _back(translator: Translator, attempts: Sequence[Attempt], code: str) -> list[Attempt]:
    """The answers in English: models often answer in it anyway; as they are where that fails, which the trace says."""
    filled = [at for at, one in enumerate(attempts) if one.answer and one.answer.strip()]
    filled = [at for at in filled if not _is_english(attempts[at].answer or "")]
    replies = translator.translate([attempts[at].answer or "" for at in filled], code, "en") if filled else []
    done = list(attempts)
    for at, reply in zip(filled, replies, strict=True):
        trace = attempts[at].trace | {"untranslated_answer": attempts[at].answer}
        if reply.text is None:
            trace = attempts[at].trace | {"answer_language": code, "why": reply.failure}
        answer = reply.text or attempts[at].answer
        done[at] = replace(attempts[at], answer=answer, trace=trace, passing=reply.passing)
    return done
