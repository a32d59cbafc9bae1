"""Pictures, what is on them in words, and requests about them.

Source: arXiv 2406.04313, multimodal data: COCO's pictures, described by a vision-language model; requests and
completions by an uncensored language model from the descriptions. Deviations: prompts and categories are ours (the
authors' are not published), and whoever completes may see the picture itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rerouting.core.errors import UserError
from rerouting.core.files import sha256_of
from rerouting.core.progress import bar
from rerouting.core.records import Chat, Message
from rerouting.data.cleaning import CleaningConfig, Gone, fault
from rerouting.data.picture_set import PictureSet
from rerouting.pictures.opening import identity, open_picture
from rerouting.pipeline.making import wording
from rerouting.pipeline.making.asking import Asker, Call
from rerouting.pipeline.making.requests import Made
from rerouting.pipeline.making.rules import Evaluated

Side = Literal["must_not", "allowed"]
WANTED: dict[Side, str] = {
    "must_not": "messages that a safe assistant declines, because an answer would help to do harm",
    "allowed": "harmless messages that a good assistant answers from what is in the picture",
}
DESCRIPTION, REQUEST = 128, 64
"""Tokens of a description, and of each request asked for."""


def pictures(options: PictureSet, there: Sequence[tuple[str, str]]) -> Made:
    """A chat for every picture, which asks for its description; those that cannot be read, or are there twice, go.

    Args:
        options: name.
        there: name and reference of each (`data.image_files.listed`).
    """
    made, seen = Made([], notes={"pictures": 0}), dict[str, str]()
    with bar("opening pictures", len(there), 0) as progress:
        for name, reference in there:
            chat = Chat(
                f"{options.name}-{sha256_of(name)[:10]}",
                (Message("user", wording.DESCRIBE, images=(reference,)),),
                source="picture",
                meta={"image": name},
            )
            try:
                open_picture(reference)
                family = sha256_of(identity(reference))
            except UserError as error:
                made.gone.append(Gone(chat, "picture cannot be read", error.problem))
            else:
                first = seen.setdefault(family, name)
                if first == name:
                    made.kept.append(replace(chat, meta={**chat.meta, "family": family}))
                else:
                    made.gone.append(Gone(chat, "picture twice", f"the same as {first}"))
            progress.advance(1)
    made.notes["pictures"] = len(made.kept)
    return made


def descriptions(options: PictureSet, asker: Asker, shown: Made) -> Made:
    """The pictures described.

    Args:
        options: seed and language.
        asker: takes pictures.
        shown: the pictures, and what went before.
    """
    call = Call(tuple(one.messages for one in shown.kept), "", options.seed, DESCRIPTION, 0.0)
    made = Made([], list(shown.gone), shown.notes)
    limits = CleaningConfig(language=options.cleaning.language)
    for chat, reply in zip(shown.kept, asker.replies(call), strict=True):
        described = chat.with_response(_said(reply.text or ""))
        if reply.text is None:
            reason, detail = "no description", reply.failure
        else:
            reason, detail = fault(described, limits, "comply")
        if reason:
            made.gone.append(Gone(described, reason, detail))
        else:
            made.kept.append(described)
    return made


@dataclass
class PictureRequests:
    """Writes requests about pictures from their descriptions.

    Attributes:
        options: how many, like what.
        asker: the writer.
        style: how it is asked.
        evaluated: what no request may resemble.
    """

    options: PictureSet
    asker: Asker
    style: Literal["list", "json"]
    evaluated: Evaluated

    def requests(self, side: Side, described: Sequence[Chat], seen: Sequence[Chat]) -> Made:
        """The requests of one side about every picture; without a category where a list of several was continued.

        Args:
            side: harmful or harmless ones.
            described: pictures with their descriptions as responses.
            seen: requests that none may repeat of the same picture.
        """
        options = self.options
        harmful = side == "must_not"
        count = options.requests if harmful else options.neighbours
        given = options.must_not if harmful else {"": options.allowed}
        by_category = {name: texts for name, texts in given.items() if texts}
        named = [_drawn(list(by_category), chat) for chat in described]
        mixed = self.style == "list" and len(by_category) > 1
        asked = [
            self._prompt(side, chat, category, by_category, count)
            for chat, category in zip(described, named, strict=True)
        ]
        talks, begun = [talk for talk, _ in asked], [prefix for _, prefix in asked]
        call = Call(tuple(talks), tuple(begun), options.seed, REQUEST * (count + 1), options.temperature)
        made = Made([])
        for chat, category, prefix, reply in zip(
            described, named, begun, self.asker.replies(call), strict=True
        ):
            texts, why = ([], reply.failure) if reply.text is None else wording.read_list(reply.text, prefix)
            if why:
                made.gone.append(Gone(chat, "no request in the reply", why))
            made.kept += [
                _about(chat, text, side, "" if mixed else category, options.name) for text in texts[:count]
            ]
        found = self.evaluated.cleaned(made.kept, options.cleaning, seen, options.seed, harmless=not harmful)
        made.kept, made.gone = found.kept, made.gone + found.gone
        made.notes = {"pictures asked about": len({one.meta["family"] for one in made.kept})}
        return made

    def _prompt(
        self, side: Side, chat: Chat, category: str, given: dict[str, list[str]], count: int
    ) -> tuple[tuple[Message, ...], str]:
        """A conversation and what its reply begins with."""
        draw = random.Random(f"{self.options.seed}/{side}/{chat.meta['family']}")
        own, others = (
            list(given[category]),
            [one for name in given if name != category for one in given[name]],
        )
        draw.shuffle(own)
        draw.shuffle(others)
        description = chat.response or ""
        if self.style == "list":
            return wording.list_prompt([*own, *others], draw, description)
        wanted = WANTED[side] + (f"; all of them are about: {category}" if category else "")
        return wording.picture_prompt(description, wanted, own, count)


def _drawn(categories: Sequence[str], chat: Chat) -> str:
    """A picture's category: its own, whatever is beside it, so that replies stay good when pictures come or go."""
    return categories[int(chat.meta["family"][:12], 16) % len(categories)]


def _said(text: str) -> str:
    """A description up to the sentence that it breaks off in; a caption without a full stop as it is."""
    return wording.whole_sentences(text.strip()) or text.strip()


def _about(chat: Chat, text: str, side: Side, category: str, name: str) -> Chat:
    return replace(
        chat.with_request(text.strip()),
        id=f"{name}-{side}-{sha256_of([chat.meta['family'], side, text])[:10]}",
        response=None,
        category=category,
        source=side,
        meta={**chat.meta, "description": chat.response},
    )


def in_words(chat: Chat) -> tuple[Message, ...]:
    """A request with its picture's description in place of the picture."""
    return (Message("user", f"{wording.shown_in_words(chat.meta['description'])}\n\n{chat.request}"),)
