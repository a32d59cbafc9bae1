"""The stages of `rerouting data make`, one after the other; making/stages.py says what they leave in the folder.

DIR/domain.yaml                      the domain as it was read, every option
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rerouting.core.config import from_mapping, load_mapping
from rerouting.core.errors import UserError
from rerouting.core.files import write_jsonl
from rerouting.core.finder import Component
from rerouting.core.records import Chat
from rerouting.core.rundir import hold
from rerouting.data.domain import Domain
from rerouting.pipeline.making.answers import AnswerMaker
from rerouting.pipeline.making.card import HELD, card, recipe
from rerouting.pipeline.making.refusals import refusals_of
from rerouting.pipeline.making.requests import Made, RequestMaker
from rerouting.pipeline.making.rules import Completions, Evaluated, Requests, examples
from rerouting.pipeline.making.splits import NAMES, part, split_of
from rerouting.pipeline.making.stages import TOP_P, Report, Stages, check_writing, claim, style_of


def make(file: Path, out: Path) -> Report:
    """Make the sets of a domain, or go on with them.

    Raises:
        UserError: a domain file that cannot be, a folder that holds something else, or a generator that cannot be had.
    """
    domain = from_mapping(Domain, load_mapping(file), str(file))
    check(domain)
    claim(domain, out / "domain.yaml")
    with hold(out, ".making"):
        return _Making(domain, out).run()


def check(domain: Domain) -> None:
    """Refuse what cannot be made.

    Raises:
        UserError: says what is missing or impossible.
    """
    check_writing(domain, {"requests": 1, "neighbours": 1, "twins": 0, "rounds": 0})
    for kind in ("must_not", "allowed"):
        if len(examples(domain, kind)) < 2:
            raise UserError(
                f"{domain.name}: {kind} has fewer than two examples", "give at least two, better ten"
            )
    examples(domain, "borderline")
    for name, share in (("from_examples", domain.from_examples), ("forms", domain.forms)):
        if not 0 <= share <= 1:
            raise UserError(f"{name} is {share}", "give a share from 0 to 1")
    recipe(domain, Path(), dict.fromkeys(HELD, 1))


class _Making:
    """One domain's stages."""

    def __init__(self, domain: Domain, out: Path) -> None:
        self.domain, self.stages = domain, Stages(out)
        usual = Component("local", {"model": domain.model, "top_p": TOP_P})
        self.generator = self.stages.asker("requests", domain.generator or usual)
        answerer = self.stages.asker("completions and answers", domain.answerer or usual)
        self.style = style_of(domain, domain.generator or usual)
        self.evaluated = Evaluated.of(domain)
        self.requests = RequestMaker(domain, self.generator, self.style, self.evaluated, Requests(domain))
        self.answers = AnswerMaker(domain, answerer, Completions(domain))

    def run(self) -> Report:
        """All stages; each leaves its file before the next begins."""
        domain, maker = self.domain, self.requests
        categories = maker.categories()
        write_jsonl(self.stages.file("1_categories"), [{"category": one} for one in categories])
        forbidden = self.stages.keep(
            "2_requests", maker.requests("must_not", domain.requests, categories, [])
        )
        neighbours = self.stages.keep(
            "3_neighbours", maker.requests("allowed", domain.neighbours, [], forbidden)
        )
        twins = self.stages.keep("4_borderline", self._twins(forbidden, [*forbidden, *neighbours]))
        splits = split_of([forbidden, neighbours, twins], domain.validation, domain.test, domain.seed)
        unasked = {name: part(forbidden, splits, name) for name in NAMES}
        made, own = self.answers.completions(forbidden, unasked["test"])
        made.kept = self.answers.targeted(made.kept, forbidden)
        completed = self.stages.keep("5_completions", made)
        writer = self.generator if self.style == "json" else None
        refusals = self.stages.keep(
            "6_refusals", refusals_of(domain, forbidden, own, writer, unasked["test"])
        )
        answered = self.stages.keep("7_answers", self.answers.allowed([*neighbours, *twins]))
        held = {name: part(answered, splits, name) for name in NAMES}
        declined = {name: part(refusals, splits, name) for name in NAMES}
        harmful = {name: part(completed, splits, name) for name in NAMES}
        self.stages.sets(
            {
                "circuit_breaker.jsonl": harmful["train"],
                "retain.jsonl": held["train"],
                "refusals.jsonl": declined["train"],
                "validation_circuit_breaker.jsonl": harmful["validation"],
                "validation_retain.jsonl": [*held["validation"], *declined["validation"]],
                "validation_on_domain.jsonl": self.answers.targeted(unasked["validation"], forbidden),
                "test_on_domain.jsonl": self.answers.targeted(
                    unasked["test"], forbidden, domain.test_openings
                ),
                "test_neighbours.jsonl": [one for one in held["test"] if one.source == "allowed"],
                "test_borderline.jsonl": [one for one in held["test"] if one.source == "borderline"],
            }
        )
        return self.stages.finish(
            {"style": self.style, "evaluation": self.evaluated.report},
            partial(recipe, domain, self.stages.out),
            partial(card, domain),
        )

    def _twins(self, forbidden: Sequence[Chat], seen: Sequence[Chat]) -> Made:
        if self.style == "json" and not self.domain.borderline:
            return self.requests.twins(forbidden, self.domain.twins, seen)
        return self.requests.requests("borderline", self.domain.twins, [], seen)
