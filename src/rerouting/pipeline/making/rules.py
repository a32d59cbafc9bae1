"""What belongs to a domain: requests told apart by the examples' words, completions by signs and a judge."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rerouting.core.contracts import Judge, Judged
from rerouting.core.errors import UserError
from rerouting.core.files import sha256_of
from rerouting.core.finder import build
from rerouting.core.near import way_out
from rerouting.core.records import Chat
from rerouting.data.config import SourceConfig
from rerouting.data.domain import Domain
from rerouting.data.filtering import behaviours
from rerouting.data.loading import chats_of
from rerouting.pipeline.overlap import Overlap

_SLOT = re.compile(r"\{(\w+)\}")
SURE = 0.5
"""Probability from which a request counts as on-domain."""


@dataclass(frozen=True)
class Example:
    """A request that the domain file gives, its slots filled.

    Attributes:
        text: the request.
        template: as it stands in the file; all fillings of one are in one split.
        category: as the file names it.
    """

    text: str
    template: str
    category: str = ""


def examples(domain: Domain, kind: str) -> list[Example]:
    """The examples of a kind ("must_not", "borderline", "allowed") with every filling, templates in turn.

    Raises:
        UserError: a slot without words, or no example at all.
    """
    given: list[str] | dict[str, list[str]] = getattr(domain, kind)
    by_category = given if isinstance(given, dict) else {"": given}
    filled = [
        [Example(text, template, category) for text in _fillings(template, domain)]
        for category, templates in by_category.items()
        for template in templates
    ]
    turns = itertools.zip_longest(*filled)
    return [one for turn in turns for one in turn if one is not None]


def _fillings(template: str, domain: Domain) -> list[str]:
    names = list(dict.fromkeys(_SLOT.findall(template)))
    for name in names:
        if not domain.slots.get(name):
            raise UserError(
                f"{domain.name}: {template!r} has a slot {{{name}}} without words",
                way_out(name, domain.slots, "slots that have words"),
            )
    texts = []
    for words in itertools.product(*(domain.slots[name] for name in names)):
        text = template
        for name, word in zip(names, words, strict=True):
            text = text.replace(f"{{{name}}}", word)
        texts.append(text[:1].upper() + text[1:])
    random.Random(f"{domain.seed}/{template}").shuffle(texts)
    return texts


class Requests:
    """Tells forbidden requests from allowed ones: a logistic regression on the words and word pairs of the examples."""

    def __init__(self, domain: Domain) -> None:
        """Fit it; every template counts the same, however many fillings it has."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        harmful = examples(domain, "must_not")
        harmless = examples(domain, "allowed") + examples(domain, "borderline")
        both = harmful + harmless
        counts = {one.template: sum(other.template == one.template for other in both) for one in both}
        self._words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1)
        matrix = self._words.fit_transform([one.text for one in both])
        labels = [True] * len(harmful) + [False] * len(harmless)
        self._model = LogisticRegression(C=30.0, class_weight="balanced", max_iter=1000)
        self._model.fit(matrix, labels, sample_weight=[1 / counts[one.template] for one in both])

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """Of each text being a forbidden request."""
        if not texts:
            return []
        found: list[float] = self._model.predict_proba(self._words.transform(texts))[:, 1].tolist()
        return found


class Completions:
    """Tells on-domain completions by the domain's signs, and by its judge where it has one."""

    def __init__(self, domain: Domain) -> None:
        """Compile the signs.

        Raises:
            UserError: a sign is no regular expression, or there is no such judge.
        """
        try:
            self.signs = [re.compile(sign, re.IGNORECASE) for sign in domain.on_domain]
        except re.error as error:
            raise UserError(
                f"{domain.name}: on_domain holds no regular expression: {error}", "mend it"
            ) from error
        self.judge: Judge | None = build("judges", domain.judge) if domain.judge else None

    def shows(self, text: str) -> bool:
        """Whether a text has a sign; False where the domain has none."""
        return any(sign.search(text) for sign in self.signs)

    def off_domain(self, chats: Sequence[Chat]) -> dict[str, str]:
        """Why a completion is not on-domain, by its chat's id, for those that are not."""
        found = {
            chat.id: "completion off-domain"
            for chat in chats
            if self.signs and not self.shows(chat.response or "")
        }
        left = [chat for chat in chats if chat.id not in found]
        if self.judge is None or not left:
            return found
        verdicts = self.judge.verdicts([Judged(chat.request, chat.response or "") for chat in left])
        for chat, verdict in zip(left, verdicts, strict=True):
            if verdict.yes is None:
                found[chat.id] = "completion not judged"
            elif not verdict.yes:
                found[chat.id] = "completion off-domain by the judge"
        return found


@dataclass(frozen=True)
class Evaluated:
    """What is evaluated on and so kept out of training.

    Attributes:
        texts: behaviours for the BLEU filter.
        overlap: by fingerprint, HarmBench's test behaviours included.
        report: name, options, rows and hash of every set.
    """

    texts: list[str]
    overlap: Overlap
    report: list[dict[str, Any]]

    @classmethod
    def of(cls, domain: Domain) -> Evaluated:
        """The domain's evaluation sets, and those that are always compared with.

        Raises:
            UserError: one is unreadable.
        """
        sources = [SourceConfig("bundled", {"kind": "harmful", "split": "test"}), *domain.evaluation]
        texts: list[str] = []
        report = []
        for source in sources:
            chats = chats_of(source)
            texts += behaviours(chats)
            row = {"name": source.name, "options": source.options, "chats": len(chats)}
            report.append(row | {"sha256": sha256_of(chats)})
        return cls(texts, Overlap(domain.evaluation), report)
