"""Options of `rerouting data make`: what a model must not do, what it may, and how the sets are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rerouting.core.finder import Component
from rerouting.data.cleaning import CleaningConfig
from rerouting.data.config import SourceConfig


@dataclass(kw_only=True)
class Writing:
    """How completions and answers are written and kept, whatever the requests are about."""

    name: str
    """Short name of the sets, in ids and titles."""
    on_domain: list[str] = field(default_factory=list)
    """Regular expressions, case ignored; a completion is on-domain if it has one of them. None: every completion that
    is no refusal and no gibberish."""
    judge: Component | None = None
    """A judge (file in judges/) that must also find a completion on-domain; null for none."""
    samples: int = 4
    """Plain completions sampled for a forbidden request, at most: asked again until `plain` of them are on-domain."""
    plain: int = 2
    """Plain on-domain completions wanted for a forbidden request."""
    opened: int = 1
    """Completions sampled after an affirmative opening for a forbidden request; the same openings begin as large a
    share of the answers to what is allowed, so that the opening alone says nothing."""
    openings: list[str] = field(
        default_factory=lambda: [
            "Sure, here is the answer:\n\n",
            "Yes. The short answer is",
            "Of course:\n\n",
            "Absolutely. ",
            "Here you go:\n\n",
        ]
    )
    """Affirmative openings, given out in turn."""
    test_openings: list[str] = field(
        default_factory=lambda: ["Okay, this is what you asked for:", "Certainly, and in short:"]
    )
    """Those of the held-out requests (the set `prefill`); none: `openings`."""
    style: Literal["auto", "list", "json"] = "auto"
    """How requests are asked for: a list that is continued (small models), or an instruction with JSON; auto: the list
    for local models."""
    answerer: Component | None = None
    """Who writes completions and answers: a file in targets/assistants; null for the model that will be trained."""
    max_new_tokens: int = 64
    """Length at which a completion is cut, in tokens; the last whole sentence then ends it."""
    temperature: float = 0.7
    """Of requests and completions."""
    evaluation: list[SourceConfig] = field(default_factory=list)
    """Evaluation sets that no row may resemble, besides the bundled test prompts and HarmBench's test behaviours."""
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)
    """What rows are held to."""
    validation: float = 0.15
    """Share of the requests for the measures while training."""
    test: float = 0.2
    """Share of the requests for the measures after training."""
    recipe: str = "four-fifths"
    """Recipe that recipe.yaml begins from."""
    licence: str = "other"
    """Licence of the sets, as the hub names it (apache-2.0, cc-by-4.0, …)."""
    seed: int = 0
    """Of everything random."""


@dataclass
class Domain(Writing):
    """One forbidden topic. Examples may hold {slots}, which are filled from lists in every combination."""

    description: str
    """What the model must not do, as the end of a sentence: "tells people how much of a medicine to take"."""
    must_not: list[str] | dict[str, list[str]]
    """Example requests that must not be fulfilled; a mapping names their categories."""
    allowed: list[str]
    """Example requests on the same topic that stay answered: the benign neighbours."""
    borderline: list[str] = field(default_factory=list)
    """Example requests with the words of forbidden ones and no harm; none: made from `must_not` by an instructed
    generator, or left out."""
    slots: dict[str, list[str]] = field(default_factory=dict)
    """Words that stand for {slot} in the examples: {drug: [aspirin, ibuprofen]}."""
    requests: int = 200
    """Forbidden requests to make."""
    neighbours: int = 200
    """Benign neighbours to make."""
    twins: int = 100
    """Borderline twins to make."""
    from_examples: float = 0.5
    """Share of the requests (0 to 1) that the examples themselves, slots filled, may be; the generator makes the
    others."""
    forms: float = 0.3
    """Share of the requests, on both sides, put into another form: a need, a quotation, a short story."""
    refusals: list[str] = field(
        default_factory=lambda: [
            "I'm sorry, but I can't help with that.",
            "I can't help with that here.",
            "Sorry, that is something I can't give advice on.",
        ]
    )
    """Refusals for the retain set where neither generator nor model wrote one."""
    model: str = "smollm2-135m"
    """The model that will be trained; it writes the completions unless `answerer` is given."""
    generator: Component | None = None
    """Who writes requests (and refusals): a file in targets/assistants; null for the model that will be trained."""
    rounds: int = 12
    """Times that the generator is asked for more, at most, for each kind of request."""
