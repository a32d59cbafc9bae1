"""What belongs to a domain: requests told apart by the examples' words, completions by signs and a judge."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rerouting.core.contracts import Judge, Judged
from rerouting.core.errors import UserError
from rerouting.core.files import sha256_of
from rerouting.core.finder import build
from rerouting.core.near import way_out
from rerouting.core.records import Chat
from rerouting.data.cleaning import Cleaned, CleaningConfig, Gone, clean
from rerouting.data.config import SourceConfig
from rerouting.data.domain import Domain, Writing
from rerouting.data.filtering import behaviours
from rerouting.data.loading import chats_of
from rerouting.data.sources.bundled import Bundled
from rerouting.evaluation.guarding import TestData

_SLOT = re.compile(r"\{(\w+)\}")
SIDES, OTHER = ("must_not", "allowed", "borderline"), "other"
"""Kinds of examples in a domain file, and what is neither."""
ALIKE = 0.95
"""BLEU above which a harmless request is too like an evaluation prompt (as in training: they should share forms)."""
FIXED = 3
"""Words that a template must have outside its slots to be found again in generated requests."""


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

    @property
    def family(self) -> str:
        """Names the template."""
        return sha256_of(self.template)[:10]


class Templates:
    """Finds the template that a generated request repeats with another word in a slot; both belong in one split."""

    def __init__(self, given: Sequence[Example]) -> None:
        """Patterns of templates; of those with fewer than `FIXED` words outside the slots nothing can be said."""
        self._known: list[tuple[re.Pattern[str], str]] = []
        for one in {one.template: one for one in given}.values():
            parts = [_words(part) for part in _SLOT.split(one.template)[::2]]
            if sum(map(len, parts)) >= FIXED:
                pattern = r"(?: \S+){0,6}".join(re.escape(_spaced(part)) for part in parts)
                self._known.append((re.compile(pattern), one.family))

    def family(self, text: str) -> str:
        """The family of the template that a text is a filling of; "" if it is of none."""
        said = _spaced(_words(text))
        return next((family for pattern, family in self._known if pattern.fullmatch(said)), "")


def shots_of(given: Sequence[Example], category: str, draw: random.Random) -> list[str]:
    """Examples to show a generator: one filling of every template of a category (all, for ""), then further ones."""
    own = [one for one in given if not category or one.category == category] or list(given)
    draw.shuffle(own)
    first = {one.template: one for one in own}
    return [one.text for one in [*first.values(), *(one for one in own if first[one.template] is not one)]]


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def _spaced(words: Sequence[str]) -> str:
    return "".join(f" {word}" for word in words)


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
    """Tells forbidden requests, allowed ones and those on other topics apart.

    A logistic regression on the words and word pairs of the domain's examples and of the package's own prompts.
    """

    def __init__(self, domain: Domain) -> None:
        """Fit it; every template counts the same, however many fillings it has."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        rows = [(one, side) for side in SIDES for one in examples(domain, side)]
        kinds: tuple[Literal["benign", "borderline"], ...] = ("benign", "borderline")
        for kind in kinds:
            rows += [(Example(chat.request, chat.id), OTHER) for chat in Bundled(kind, "train").load()]
        counts = Counter((one.template, side) for one, side in rows)
        sizes = Counter(side for _, side in counts)
        weights = [1 / counts[one.template, side] / sizes[side] for one, side in rows]
        self._words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        matrix = self._words.fit_transform([one.text for one, _ in rows])
        self._model = LogisticRegression(C=1000.0, max_iter=1000)
        self._model.fit(matrix, [side for _, side in rows], sample_weight=weights)

    def side(self, text: str) -> tuple[str, float]:
        """The likeliest of must_not, allowed, borderline and other, and its probability."""
        chances = self._model.predict_proba(self._words.transform([text]))[0]
        best = int(chances.argmax())
        return str(self._model.classes_[best]), float(chances[best])

    def wrong(self, text: str, kind: str, strict: bool) -> str:
        """Why a generated request is not of its kind; "" if it is.

        Strictly, forbidden and allowed requests must read like their examples (small models drift off); else no
        request may read like one of the other side.
        """
        side, chance = self.side(text)
        if strict and kind != "borderline":
            fits = side == kind
        else:
            fits = (side in ("must_not", OTHER)) if kind == "must_not" else side != "must_not"
        return "" if fits else f"reads like {side} ({chance:.2f})"


class Completions:
    """Tells on-domain completions by the domain's signs, and by its judge where it has one."""

    def __init__(self, domain: Writing) -> None:
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
        for sign in self.signs:
            if sign.search(""):
                raise UserError(
                    f"{domain.name}: on_domain has {sign.pattern!r}, which is in every text",
                    "give expressions that only forbidden text has, or leave on_domain out",
                )
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
        known: by fingerprint, HarmBench's test behaviours and all bundled test prompts included.
        report: name, options, rows and hash of every set.
    """

    texts: list[str]
    known: TestData
    report: list[dict[str, Any]]

    @classmethod
    def of(cls, domain: Writing) -> Evaluated:
        """The domain's evaluation sets, and those that are always compared with.

        Raises:
            UserError: one is unreadable.
        """
        sources = [SourceConfig("bundled", {"kind": "harmful", "split": "test"}), *domain.evaluation]
        texts: list[str] = []
        known = TestData.known()
        report = []
        for source in sources:
            chats = chats_of(source)
            texts += behaviours(chats)
            known.add(source.name, chats)
            row = {"name": source.name, "options": source.options, "chats": len(chats)}
            report.append(row | {"sha256": sha256_of(chats)})
        return cls(texts, known, report)

    def cleaned(
        self,
        chats: Sequence[Chat],
        config: CleaningConfig,
        seen: Sequence[Chat],
        seed: int,
        *,
        harmless: bool,
    ) -> Cleaned:
        """Requests cleaned, and none that is evaluated on.

        Args:
            chats: the requests.
            config: the rules' thresholds.
            seen: requests that none may repeat.
            seed: of the balance.
            harmless: these may be nearly like an evaluation prompt.
        """
        if harmless:
            config = replace(config, max_bleu=config.max_bleu and max(config.max_bleu, ALIKE))
        found = clean(chats, config, "none", self.texts, seen, seed)
        left = [(one, self.known.of_chat(one)) for one in found.kept]
        found.gone += [Gone(one, "an evaluation prompt", why) for one, why in left if why]
        found.kept = [one for one, why in left if not why]
        return found
