"""What an attack sends to a model, and what came back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from rerouting.core.records import Chat, Message


@dataclass(frozen=True)
class Attempt:
    """One input to the model under attack; with `answer` if the attack has already got one.

    Attributes:
        chat: what is sent, as the attack rewrote it; its `id` stays that of the behaviour's chat.
        prefill: text that the model's answer is made to begin with ("" for none).
        ids: the exact prompt tokens, where the rendered chat's text would be tokenised to others.
        embeddings: the exact soft input, float32 (T, D) tensor; instead of tokens.
        answer: the model's answer; None leaves the answering (greedy, batched) to the matrix.
        trace: what the attack wants on record: losses, steps, queries, translations … (JSON values).
        failure: why there is no answer; the case is then unscored, never a zero.
        passing: the failure may be over later; the case is attacked again when the matrix is run again.
    """

    chat: Chat
    prefill: str = ""
    ids: tuple[int, ...] | None = None
    embeddings: Any = field(default=None, compare=False)
    answer: str | None = None
    trace: dict[str, Any] = field(default_factory=dict, hash=False)
    failure: str | None = None
    passing: bool = False

    def answered(self, answer: str) -> Attempt:
        """The same attempt, with the model's answer."""
        return replace(self, answer=answer)


def behaviour_of(chat: Chat) -> str:
    """What the model must not do, in words: without the context and whatever an attack wrote around it."""
    return str(chat.meta.get("behaviour") or chat.request)


def context_of(chat: Chat) -> str:
    """The text that a contextual behaviour refers to, "" for a standard one."""
    return str(chat.meta.get("context") or "")


def with_context(context: str, text: str) -> str:
    """A user turn that carries its context, as HarmBench's DirectRequest asks."""
    return f"{context}\n\n---\n\n{text}" if context else text


def ask(chat: Chat, text: str) -> Chat:
    """The chat with its last user turn rewritten; a contextual behaviour keeps its context in front."""
    kept = chat.meta if "behaviour" in chat.meta else chat.meta | {"behaviour": chat.request}
    rewritten = Message("user", with_context(context_of(chat), text), images=chat.messages[-1].images)
    return replace(chat, messages=(*chat.messages[:-1], rewritten), meta=kept)


def opening_of(target: str, ending: str = "") -> str:
    """An affirmative target as the opening of an answer: without its final full stop or colon, then `ending`."""
    return target.rstrip(" .:") + ending
