"""A chat model that is never asked the same twice: every reply is kept in an append-only file.

Everything after the replies is a pure function of them, so a run that was killed goes on by running again: what was
generated is read, what was not is generated. A kill loses the one batch (`BATCH`, or what the model says) that was
under way. A failure that may be over later (no connection) is asked again in the next run; any other is kept like a
reply, and its rows are dropped with it as the reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerouting.core.contracts import ChatModel, Reply
from rerouting.core.conversion import plain
from rerouting.core.errors import UserError
from rerouting.core.files import append_jsonl, read_jsonl, sha256_of
from rerouting.core.progress import bar
from rerouting.core.records import Message
from rerouting.data.messages import with_pictures
from rerouting.pictures.opening import identity

BATCH, TRIES, GIVEN_UP = 32, 3, 3
"""Conversations in one batch, where the model does not say; tries of each; batches in a row without any reply after
which the model is left alone."""


@dataclass(frozen=True)
class Call:
    """Conversations that may be sent together.

    Attributes:
        talks: turns of each.
        prefill: what every reply begins with, or what each one does.
        seed: of the sampling.
        max_new_tokens: length of a reply.
        temperature: 0 is greedy.
    """

    talks: tuple[tuple[Message, ...], ...]
    prefill: str | tuple[str, ...] = ""
    seed: int = 0
    max_new_tokens: int = 256
    temperature: float = 0.9

    @property
    def prefills(self) -> tuple[str, ...]:
        """What each reply begins with."""
        return (self.prefill,) * len(self.talks) if isinstance(self.prefill, str) else self.prefill


@dataclass
class Asker:
    """A chat model with its file of replies.

    Attributes:
        model: who is asked; made when there is something to ask, so that a finished run loads no model.
        identity: what its replies depend on besides the call (plain values).
        file: the replies, one a line, under the hash of all that they depend on.
        name: what is shown while it is asked.
        generated: replies that this process generated.
        known: replies that it read.
    """

    model: Callable[[], ChatModel]
    identity: Any
    file: Path
    name: str = "replies"
    generated: int = 0
    known: int = 0
    _kept: dict[str, Reply] = field(default_factory=dict)
    _silent: int = 0
    _last: str = ""

    @property
    def gave_up(self) -> str:
        """Why the model was left alone; "" if it was not."""
        return self._last if self._silent >= GIVEN_UP else ""

    def __post_init__(self) -> None:
        if self.file.exists():
            for row in read_jsonl(self.file, tolerate_torn=True):
                self._kept[row["key"]] = Reply(row.get("text"), row.get("failure", ""))

    def replies(self, call: Call) -> list[Reply]:
        """One reply a conversation, in order.

        Raises:
            UserError: the model cannot be had, or the file cannot be written.
        """
        names = self._names(call)
        missing = [at for at, name in enumerate(names) if name not in self._kept]
        self.known += len(names) - len(missing)
        found = [self._kept.get(name, Reply(None, "not asked", passing=True)) for name in names]
        if not missing:
            return found
        with bar(self.name, len(names), len(names) - len(missing)) as progress:
            for batch in self._batches(call, missing):
                self._ask(call, found, batch, names)
                for at in batch:
                    if found[at].text is None and not found[at].passing:
                        self._keep(names[at], found[at])
                progress.advance(len(batch))
        return found

    def _batches(self, call: Call, missing: Sequence[int]) -> list[list[int]]:
        """Places that are asked together: of one prefill, unless the model takes many."""
        model: Any = self.model()
        size, many = getattr(model, "batch", BATCH), getattr(model, "many_prefills", False)
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for at in missing:
            groups["" if many else call.prefills[at]].append(at)
        return [group[at : at + size] for group in groups.values() for at in range(0, len(group), size)]

    def _keep(self, name: str, reply: Reply) -> None:
        self._kept[name] = reply
        said = {"text": reply.text} if reply.text is not None else {"failure": reply.failure}
        append_jsonl(self.file, {"key": name, **said})

    def _names(self, call: Call) -> list[str]:
        """Of equal conversations each has its number: they are sampled apart."""
        counts = Counter[str]()
        names = []
        rest = [call.seed, call.max_new_tokens, call.temperature]
        for talk, prefill in zip(call.talks, call.prefills, strict=True):
            name = sha256_of([self.identity, prefill, *rest, plain(with_pictures(talk, identity))])
            names.append(f"{name}-{counts[name]}")
            counts[name] += 1
        return names

    def _ask(self, call: Call, kept: list[Reply], missing: list[int], names: list[str]) -> None:
        """Put replies, or the last failures, into the missing places; each reply is kept before more is asked."""
        for attempt in range(TRIES):
            if not missing or self._silent >= GIVEN_UP:
                break
            found = self._once(call, missing, call.seed + 1000 * attempt)
            for at, reply in zip(missing, found, strict=True):
                kept[at] = reply
                if reply.text is not None:
                    self._keep(names[at], reply)
            self.generated += sum(reply.text is not None for reply in found)
            self._silent = self._silent + 1 if all(reply.passing for reply in found) else 0
            self._last = found[-1].failure
            missing = [at for at in missing if kept[at].text is None]
        if self._silent >= GIVEN_UP:
            for at in missing:
                kept[at] = Reply(None, f"given up on the generator: {kept[at].failure}", passing=True)

    def _once(self, call: Call, places: Sequence[int], seed: int) -> list[Reply]:
        talks = [call.talks[at] for at in places]
        prefills = [call.prefills[at] for at in places]
        model: Any = self.model()
        try:
            found = model.reply(
                talks,
                max_new_tokens=call.max_new_tokens,
                temperature=call.temperature,
                seed=seed,
                prefill=prefills[0] if len(set(prefills)) == 1 else prefills,
            )
        except UserError:
            raise
        except Exception as error:  # whatever an own component raises: its rows are tried again, then dropped
            line = (str(error) or type(error).__name__).splitlines()[0]
            return [Reply(None, f"{type(error).__name__}: {line[:200]}", passing=True)] * len(talks)
        if len(found) != len(talks):
            failure = f"{len(found)} replies to {len(talks)} conversations"
            return [Reply(None, failure)] * len(talks)
        return list(found)
