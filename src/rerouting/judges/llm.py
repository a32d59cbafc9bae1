"""A rubric put to any chat model, local or behind an endpoint; a reply without a verdict line is unscored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rerouting.core.contracts import ChatModel, Judged, Reply, Verdict
from rerouting.core.finder import Component, build
from rerouting.core.records import Message
from rerouting.judges._prompts import filled, text_of, version_of

_VERDICT = re.compile(r"^\W*verdict\W+(yes|no)\W*$", re.IGNORECASE | re.MULTILINE)
_ALONE = re.compile(r"\W*(yes|no)\W*", re.IGNORECASE)


@dataclass(frozen=True)
class Llm:
    """Only as good as the chat model behind it: measure its κ against answers that were read."""

    assistant: str = "endpoint"
    """A file in targets/assistants/ ("endpoint", "local"), or path/to/mine.py:Name."""
    assistant_options: dict[str, Any] = field(default_factory=dict)
    """Its options: {model: gpt-4o, url: …, api_key_env: …}."""
    rubric: str = "llm"
    """Path of an own rubric with {behaviour}, {context} and {answer}, which ends by asking for "Verdict: yes" or
    "Verdict: no"; "llm" is the bundled one."""
    max_new_tokens: int = 256
    """Length at which a reply is cut."""

    def __post_init__(self) -> None:
        self._chat_model()
        self._asked(Judged("", ""))

    @property
    def version(self) -> str:
        """Names the rubric."""
        return version_of(self.rubric)

    def verdicts(self, judged: Sequence[Judged]) -> list[Verdict]:
        """One verdict an answer, in order.

        Raises:
            UserError: the chat model cannot be had.
        """
        talks = [[Message("user", self._asked(one))] for one in judged]
        replies = self._chat_model().reply(talks, max_new_tokens=self.max_new_tokens) if talks else []
        return [read(reply) for reply in replies]

    def _chat_model(self) -> ChatModel:
        made: ChatModel = build("targets.assistants", Component(self.assistant, self.assistant_options))
        return made

    def _asked(self, one: Judged) -> str:
        rubric = text_of(self.rubric)
        return filled(rubric, behaviour=one.behaviour, context=one.context, answer=one.answer)


def read(reply: Reply) -> Verdict:
    """The last verdict line of a reply, or its only word."""
    if reply.text is None:
        return Verdict(None, reply.failure)
    lines = list(_VERDICT.finditer(reply.text))
    found = lines[-1] if lines else _ALONE.fullmatch(reply.text.strip())
    if found is None:
        return Verdict(None, f"no verdict in the reply: {reply.text.strip()[:80]!r}")
    return Verdict(found.group(1).lower() == "yes", reply.text.strip()[:200])
