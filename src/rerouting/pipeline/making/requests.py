"""Categories and requests: the domain's examples, and what a generator adds to them, cleaned after every round."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rerouting.core.files import sha256_of
from rerouting.core.records import Chat, Message
from rerouting.data.cleaning import Cleaned, Gone, balanced
from rerouting.data.domain import Domain
from rerouting.pipeline.making import wording
from rerouting.pipeline.making.asking import Asker, Call
from rerouting.pipeline.making.rules import Evaluated, Requests, Templates, examples, shots_of

Kind = Literal["must_not", "borderline", "allowed"]
CATEGORIES, FEW = 6, {"list": 0.025, "json": 0.05}
"""Categories asked for; the share of what is wanted below which a round brought too little."""
TALKS, LENGTH, IDLE = {"list": 16, "json": 8}, {"list": 192, "json": 320}, {"list": 1, "json": 2}
"""Replies asked for in a round, and their tokens; rounds in a row that end it by bringing too little."""


@dataclass
class Made:
    """What a stage made: rows that stay, and what went with its reason."""

    kept: list[Chat]
    gone: list[Gone] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


@dataclass
class RequestMaker:
    """Makes the requests of a domain.

    Attributes:
        domain: what is to be made.
        asker: the generator.
        style: how it is asked.
        evaluated: what no request may resemble.
        tell: tells forbidden from allowed requests.
    """

    domain: Domain
    asker: Asker
    style: Literal["list", "json"]
    evaluated: Evaluated
    tell: Requests

    def categories(self) -> list[str]:
        """Of the domain file; else, of an instructed generator; else the one category ""."""
        given = self.domain.must_not
        if isinstance(given, dict):
            return list(given)
        if self.style == "list":
            return [""]
        shots = [one.text for one in examples(self.domain, "must_not")]
        talk = wording.categories_prompt(self.domain.description, shots, CATEGORIES)
        (reply,) = self.asker.replies(Call((talk,), seed=self.domain.seed))
        found, _ = wording.read_list(reply.text or "")
        return [one[:60] for one in found[:CATEGORIES]] or [""]

    def requests(self, kind: Kind, count: int, categories: Sequence[str], seen: Sequence[Chat]) -> Made:
        """So many requests of a kind, or fewer where the rounds are over.

        Args:
            kind: forbidden, borderline or allowed ones.
            count: to make.
            categories: of the forbidden ones.
            seen: requests of other kinds, which none may repeat.
        """
        given = self._examples(kind)
        made = Made([], notes={"from examples": 0, "generated": 0})
        if not given or count < 1:
            return made
        few = given[: max(1, round(self.domain.from_examples * count))]
        found = self._cleaned(few, kind, seen)
        idle = 0
        for number in range(self.domain.rounds):
            if len(found.kept) >= count or idle >= IDLE[self.style]:
                break
            more, failed = self._round(kind, number, categories)
            made.gone += failed
            before = len(found.kept)
            # What stayed is cleaned again with what is new, so that duplicates of both are found.
            again = self._cleaned([*found.kept, *more], kind, seen)
            found = Cleaned(again.kept, found.gone + again.gone)
            idle = idle + 1 if len(found.kept) - before < max(1, FEW[self.style] * count) else 0
        if len(found.kept) < count and len(given) > len(few):
            again = self._cleaned([*found.kept, *given[len(few) :]], kind, seen)
            found = Cleaned(again.kept, found.gone + again.gone)
        kept, uneven = found.kept, list[Chat]()
        if self.domain.cleaning.balance is not None:
            kept, uneven = balanced(kept, self.domain.cleaning.balance, self.domain.seed)
        made.kept = self._in_forms(kept[:count], kind)
        made.gone += [*found.gone, *(Gone(one, "category too large", one.category) for one in uneven)]
        made.gone += [Gone(one, "more than asked for") for one in kept[count:]]
        made.notes["from examples"] = sum(one.meta["from"] == "example" for one in made.kept)
        made.notes["generated"] = len(made.kept) - made.notes["from examples"]
        return made

    def twins(self, requests: Sequence[Chat], count: int, seen: Sequence[Chat]) -> Made:
        """Borderline requests, each made from a forbidden one by an instructed generator; it keeps its twin's family.

        Args:
            requests: forbidden ones.
            count: to make.
            seen: requests that none may repeat.
        """
        made = Made([], notes={"generated": 0})
        chosen = list(requests)[: round(1.5 * count)]
        groups = [chosen[at : at + wording.ASKED] for at in range(0, len(chosen), wording.ASKED)]
        talks = [
            wording.twins_prompt([one.request for one in group], self.domain.description) for group in groups
        ]
        call = Call(tuple(talks), "", self.domain.seed + 7, 640, 0.7)
        for group, reply in zip(groups, self.asker.replies(call), strict=True):
            texts, why = wording.read_list(reply.text) if reply.text is not None else ([], reply.failure)
            if why:
                made.gone.append(Gone(group[0], "no twin", why))
            for one, text in zip(group, texts, strict=False):
                made.kept.append(
                    self._chat(text, "borderline", one.meta["family"], one.category, "", "generated")
                )
        found = self._cleaned(made.kept, "borderline", seen)
        made.kept, made.gone = found.kept[:count], made.gone + found.gone
        made.notes["generated"] = len(made.kept)
        return made

    def _examples(self, kind: Kind) -> list[Chat]:
        return [
            self._chat(one.text, kind, one.family, one.category, "", "example")
            for one in examples(self.domain, kind)
        ]

    def _round(self, kind: Kind, number: int, categories: Sequence[str]) -> tuple[list[Chat], list[Gone]]:
        """New candidates of one round, and replies that held none."""
        seed = self.domain.seed + 100 * (number + 1)
        draw = random.Random(f"{seed}/{kind}")
        count = TALKS[self.style]
        named = list(categories if kind == "must_not" else [""])
        given = examples(self.domain, kind)
        if self.style == "list":
            labels = [(named[at % len(named)], "") for at in range(count)]
            lists = [wording.list_prompt(shots_of(given, category, draw), draw) for category, _ in labels]
            talks, prefills = [talk for talk, _ in lists], [begun for _, begun in lists]
        else:
            pairs = [(one, form) for one in named for form in wording.FORMS]
            labels = [pairs[(number * count + at) % len(pairs)] for at in range(count)]
            wanted, shots = self._wanted(kind), shots_of(given, "", draw)
            talks = [wording.json_prompt(wanted, shots, *label, draw) for label in labels]
            prefills = [""] * count
        call = Call(tuple(talks), tuple(prefills), seed, LENGTH[self.style], self.domain.temperature)
        templates = Templates(given)
        chats: list[Chat] = []
        failed: list[Gone] = []
        for (category, form), begun, reply in zip(labels, prefills, self.asker.replies(call), strict=True):
            texts, why = ([], reply.failure) if reply.text is None else wording.read_list(reply.text, begun)
            if why:
                failed.append(Gone(Chat("", (Message("user", ""),)), "no request in the reply", why))
            chats += [
                self._chat(text, kind, templates.family(text), category, form, "generated") for text in texts
            ]
        return chats, failed

    def _wanted(self, kind: Kind) -> str:
        if kind == "must_not":
            return f"messages that, if answered, lead to an assistant that {self.domain.description}"
        nearly = (
            "with the same words, but harmless" if kind == "borderline" else "on the same topic, and allowed"
        )
        return f"harmless messages for an assistant that must never do this: it {self.domain.description}; {nearly}"

    def _chat(self, text: str, kind: Kind, family: str, category: str, form: str, origin: str) -> Chat:
        name = sha256_of([kind, text])[:10]
        return Chat(
            id=f"{self.domain.name}-{kind}-{name}",
            messages=(Message("user", text.strip()),),
            category=category,
            form=form,
            source=kind,
            meta={"family": family or name, "from": origin},
        )

    def _cleaned(self, chats: Sequence[Chat], kind: Kind, seen: Sequence[Chat]) -> Cleaned:
        config = replace(self.domain.cleaning, balance=None)
        found = self.evaluated.cleaned(chats, config, seen, self.domain.seed, harmless=kind != "must_not")
        rule = self._wrong_side(kind)
        left = [(one, rule(one)) for one in found.kept]
        found.gone += [Gone(one, "reads like another kind", why) for one, why in left if why]
        found.kept = [one for one, why in left if not why]
        return found

    def _wrong_side(self, kind: Kind) -> Callable[[Chat], str]:
        """Generated requests that read like another kind's; the file's own are what it says they are."""

        def rule(chat: Chat) -> str:
            return (
                ""
                if chat.meta["from"] == "example"
                else self.tell.wrong(chat.request, kind, self.style == "list")
            )

        return rule

    def _in_forms(self, chats: Sequence[Chat], kind: Kind) -> list[Chat]:
        """A share in other forms, where the generator was not asked for them."""
        if self.style == "json":
            return list(chats)
        draw = random.Random(f"{self.domain.seed}/{kind}/forms")
        chosen = set(draw.sample(range(len(chats)), round(self.domain.forms * len(chats))))
        return [_framed(one, draw) if at in chosen else _named(one) for at, one in enumerate(chats)]


def _framed(chat: Chat, draw: random.Random) -> Chat:
    form = draw.choice(sorted(wording.FRAMES))
    return replace(chat.with_request(wording.FRAMES[form].format(request=chat.request)), form=form)


def _named(chat: Chat) -> Chat:
    return replace(chat, form="question" if chat.request.rstrip().endswith("?") else "command")
