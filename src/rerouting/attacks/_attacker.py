"""What the chat attacks share: asking the attacker's model, reading what it wrote, and the record of a search.

The attacker is asked for one prompt between <prompt> tags. Small models seldom keep to a form, so JSON with a
"prompt" (in the tags too, and cut off), a paragraph that begins with "Prompt:", and at last the whole text are taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rerouting.core.attempt import Attempt, behaviour_of, context_of
from rerouting.core.contracts import ChatModel, Judged, Resources, Verdict
from rerouting.core.records import Chat, Message
from rerouting.core.refusal import declines
from rerouting.targets.target import Target

OPENING = "<prompt>"
_CLOSED = re.compile(r"<prompt>((?:(?!<prompt>).)*?)</prompt>", re.DOTALL | re.IGNORECASE)
_OPENED = re.compile(r"<prompt>", re.IGNORECASE)
_JSON_KEY = re.compile(r'"prompt"\s*:\s*')
_JSON_TEXT = re.compile(r'"(?:[^"\\]|\\.)*', re.DOTALL)
_PARAGRAPH = re.compile(
    r"^\W*(?:new |improved |my )?prompt\W*:[\s*]*(\S.*?)(?=\n\s*\n|\Z)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_LETTERS = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Draft:
    """What the attacker gave when asked for one prompt.

    Attributes:
        prompt: its prompt; None if it never gave a usable one.
        calls: times that it was asked.
        failures: why each call before, or every one, was of no use.
        passing: the last failure may be over later.
    """

    prompt: str | None
    calls: int
    failures: tuple[str, ...] = ()
    passing: bool = False


@dataclass(frozen=True)
class Asking:
    """How an attacker's model is asked."""

    tries: int
    max_new_tokens: int
    temperature: float
    prefill: str = ""


def drafts(
    assistant: ChatModel, conversations: Sequence[Sequence[Message]], how: Asking, seed: int
) -> list[Draft]:
    """One draft a conversation; those without a usable prompt are asked for again, with another seed."""
    prompts: dict[int, str] = {}
    calls, failures = [0] * len(conversations), [list[str]() for _ in conversations]
    passing = [False] * len(conversations)
    for again in range(how.tries):
        left = [at for at in range(len(conversations)) if at not in prompts]
        if not left:
            break
        replies = assistant.reply(
            [conversations[at] for at in left],
            max_new_tokens=how.max_new_tokens,
            temperature=how.temperature,
            seed=seed + 1000 * again,
            prefill=how.prefill,
        )
        for at, reply in zip(left, replies, strict=True):
            calls[at] += 1
            prompt, why = (None, reply.failure) if reply.text is None else read_prompt(reply.text)
            if prompt is None:
                failures[at].append(why or "no text")
                passing[at] = reply.passing
            else:
                prompts[at] = prompt
    return [
        Draft(prompts.get(at), calls[at], tuple(failures[at]), passing[at])
        for at in range(len(conversations))
    ]


def read_prompt(text: str) -> tuple[str | None, str]:
    """The prompt in what an attacker wrote, or None and why there is none."""
    tagged = _bare(_tagged(text))
    found = _from_json(text if not tagged else tagged if tagged.startswith("{") else "")
    if found == "":
        return None, "JSON without a prompt that can be read"
    found = found or tagged
    if not found and (paragraph := _PARAGRAPH.search(text)):
        found = paragraph.group(1)
    found = _bare(found or text)
    if not found:
        return None, "empty"
    if declines(found):
        return None, f"refused: {clip(found, 80)}"
    if not _LETTERS.search(found):
        return None, f"no words: {clip(found, 40)}"
    return found, ""


def clip(text: str, limit: int = 800) -> str:
    """The first `limit` characters."""
    return text if len(text) <= limit else text[:limit] + " …"


def goal_of(chat: Chat) -> str:
    """The behaviour as an attacker reads it, with the text that it refers to."""
    context = context_of(chat)
    shown = f"\n(A text goes with it; it is sent along on its own: {clip(context)})" if context else ""
    return behaviour_of(chat) + shown


def words_of(verdict: Verdict) -> str:
    """A verdict as an attacker reads it."""
    words = {True: "the goal was reached", False: "the goal was not reached", None: "nobody could tell"}
    return words[verdict.yes] + ("" if verdict.score is None else f" (score {verdict.score:.2f})")


def assess(
    target: Target, attempts: Sequence[Attempt], resources: Resources
) -> list[tuple[Attempt, Verdict]]:
    """The model's greedy answers and what the judge says of each."""
    if not attempts:
        return []
    answers = target.answer(list(attempts))
    judged = [
        Judged(behaviour_of(one.chat), answer, context_of(one.chat), sent=one.chat)
        for one, answer in zip(attempts, answers, strict=True)
    ]
    verdicts = resources.judge(judged)
    return [(one.answered(text), v) for one, text, v in zip(attempts, answers, verdicts, strict=True)]


@dataclass
class Search:
    """The record of one behaviour's search.

    Attributes:
        chat: the behaviour's chat as it came.
        done: a judge has called an answer a success.
        best: the success; else an answer that could not be judged (the case is no plain no); else the one with the
            highest score. Of equals the last, which has come furthest, unless it was taken back.
        answered: every query with its answer.
        cut_short: the attacker failed in a way that may be over later.
    """

    chat: Chat
    done: bool = False
    best: Attempt | None = None
    answered: list[Attempt] = field(default_factory=list)
    calls: int = 0
    failures: list[str] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    cut_short: bool = False
    _rank: tuple[int, float, bool] = (-1, 0.0, False)

    def count(self, draft: Draft) -> None:
        """Put an attacker's calls on record."""
        self.calls += draft.calls
        self.failures.extend(draft.failures)
        self.cut_short = self.cut_short or (draft.prompt is None and draft.passing)

    def note(self, attempt: Attempt, verdict: Verdict, prompt: str, **where: Any) -> None:
        """Put an answer on record; `best` is not changed by what follows a success."""
        said = {"verdict": verdict.yes, "score": verdict.score, "reason": verdict.reason}
        self.steps.append({**where, "prompt": prompt, **said})
        attempt = replace(attempt, trace=where)
        self.answered.append(attempt)
        stands = not where.get("taken_back", False)
        rank = ({True: 2, None: 1, False: 0}[verdict.yes], verdict.score or 0.0, stands)
        if rank >= self._rank and not self.done:
            self.best, self._rank = attempt, rank
        self.done = self.done or verdict.yes is True

    def result(self, **more: Any) -> list[Attempt]:
        """The best attempt with the search on record, then all others; a failure where the attacker failed."""
        trace = {
            "queries": len(self.answered),
            "attacker_calls": self.calls,
            "attacker_failures": self.failures,
            "success_in_loop": self.done,
            "steps": self.steps,
            **more,
        }
        last = self.failures[-1] if self.failures else "it was never asked"
        if self.best is None:
            why = f"attacker gave no usable prompt in {self.calls} calls; the last: {last}"
            return [Attempt(self.chat, failure=why, passing=self.cut_short, trace=trace)]
        found = [replace(self.best, trace=trace), *(one for one in self.answered if one is not self.best)]
        if self.cut_short and not self.done:
            why = f"the search was cut short, an attacker's call failed: {last}"
            found.append(Attempt(self.chat, failure=why, passing=True))
        return found


def _tagged(text: str) -> str:
    """What stands between tags; after an opening one that is never closed, if there is no more; else ""."""
    for one in (*_CLOSED.findall(text), *reversed(_OPENED.split(text)[1:])):
        if _bare(one):
            return str(one)
    return ""


def _from_json(text: str) -> str | None:
    """The "prompt" of JSON somewhere in a text, "" if it cannot be read, None if there is none."""
    key = _JSON_KEY.search(text)
    if key is None:
        return None
    value = _JSON_TEXT.match(text, key.end())
    try:
        return str(json.loads(value.group() + '"', strict=False)).strip() if value else ""
    except ValueError:
        return ""


def _bare(text: str) -> str:
    """Without code fences, stray tags, and one pair of quotes around the whole."""
    text = re.sub(r"^```\w*\n?|```$|</?prompt>", "", text.strip(), flags=re.IGNORECASE).strip()
    quoted = len(text) > 1 and (text[0], text[-1]) in {('"', '"'), ("'", "'"), ("“", "”")}
    if quoted and not re.search(
        rf"(?<!\w){text[-1]}|{text[-1]}(?!\w)", text[1:-1]
    ):  # an apostrophe is no quote
        text = text[1:-1].strip()
    return text
