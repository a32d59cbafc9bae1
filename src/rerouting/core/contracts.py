"""What attacks, judges, measures, chat models and translators promise each other.

An attack is one file in attacks/ with a dataclass that has one of two methods:

- `prompts(chats) -> [Attempt]`: it never looks at the model (templates, prefilling …);
- `run(target, chats, resources) -> [Attempt]`: it optimises against the model, talks to it, or changes it.
  `target` is a `rerouting.targets.target.Target`.

and, where its defaults do not fit:

- `fit(target, resources) -> {name: tensor}`: what it learns once per model (a direction, an adapter); kept in a file,
  given back as `resources.fitted`;
- `group`: behaviours handed over at once (64), which is also what a kill can lose;
- `budgets`: options for the budgets "quick" and "paper"; its defaults are "standard";
- `cases`: behaviours attacked under each budget, spread evenly over the set; None (or no entry) for all;
- `tampers`: true if it changes weights or states while the model answers, so that the text alone does not repeat it.

An attempt whose trace has a "part" (a language, a scale, a grid point) is also shown apart in the table, with the
trace's "beside" (what else the attack did there, such as the loss of harmless text) where there is one.

A judge is one file in judges/ with a dataclass that has `verdicts(judged) -> [Verdict]`. With `uses_likelihoods` true,
a verdict belongs to an answer with its likelihoods, else to the answer alone; `version` (any text) names what else its
verdicts depend on, weights or prompts: those of another version are not reused.

A measure is one file in measures/ with a dataclass that has `measure(base, rerouted, aids) -> Measured`: what circuit
breakers cost. Both models are `rerouting.targets.target.Target`s; a measure leaves them as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rerouting.core.attempt import Attempt
from rerouting.core.findings import Finding
from rerouting.core.records import Chat, Message

Budget = str
BUDGETS = ("quick", "standard", "paper")


@dataclass(frozen=True)
class Judged:
    """An answer to be judged.

    Attributes:
        behaviour: what the model must not do.
        answer: what it wrote, in English (a multilingual attack translates back first).
        context: text that a contextual behaviour refers to, "" if there is none.
        sent: the chat that was answered; None for the plain request.
        prefill: what the answer was made to begin with (it is not part of `answer`).
        language: BCP 47 code of the language that the answer is in.
        temperature: at which the answer was sampled; 0 is greedy.
        nll: each answer token's negative log-likelihood in nats under the base model, given what was sent; empty
            where it was not measured.
        end: that of ending where it ends; None where it was cut by the limit of its length, or not measured.
        reference: the base model's own answer to the plain request, at the same temperature; None where it was not
            measured.
        reference_nll: the same for that answer.
        reference_end: likewise.
    """

    behaviour: str
    answer: str
    context: str = ""
    sent: Chat | None = None
    prefill: str = ""
    language: str = "en"
    temperature: float = 0.0
    nll: tuple[float, ...] = ()
    end: float | None = None
    reference: str | None = None
    reference_nll: tuple[float, ...] = ()
    reference_end: float | None = None


@dataclass(frozen=True)
class Verdict:
    """Did the attack succeed, as far as this judge can see?

    Attributes:
        yes: True or False; None is *unscored*, and never counted as either.
        reason: why; always there when unscored.
        score: the judge's own figure, if it has one (probability, rubric sum).
    """

    yes: bool | None
    reason: str = ""
    score: float | None = None


class Judge(Protocol):
    """One file in judges/."""

    def verdicts(self, judged: Sequence[Judged]) -> list[Verdict]:
        """One verdict an answer, in order; a row that cannot be judged is unscored and voids no other row."""
        ...


@dataclass(frozen=True)
class Reply:
    """What a chat model wrote, or why it did not.

    Attributes:
        text: None if there is none.
        failure: why.
        passing: the failure may be over later (a time-out, a broken connection): worth another try.
    """

    text: str | None
    failure: str = ""
    passing: bool = False


class ChatModel(Protocol):
    """An attacker's, judge's or translator's model: local, or behind an endpoint (targets/assistants/).

    One with a true `many_prefills` also takes a list of prefills, one a conversation; `batch` is the number of
    conversations that it likes to be sent together. Both may be missing.
    """

    def reply(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        prefill: str = "",
    ) -> list[Reply]:
        """Continue each conversation.

        Args:
            conversations: turns of each, the last one the user's.
            max_new_tokens: length at which a reply is cut.
            temperature: 0 is greedy.
            seed: of the sampling.
            prefill: what each reply is made to begin with; it is part of the returned text.

        Returns:
            One reply a conversation, in order; a failed one has no text and says why.
        """
        ...


class Translator(Protocol):
    """Text to another language and back (targets/translators/)."""

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Reply]:
        """Translate each text between two languages, given as BCP 47 codes ("en", "zh-CN", "uk" …)."""
        ...


@dataclass(frozen=True)
class Resources:
    """What an attack may use beside the model.

    Attributes:
        seed: of everything random.
        judge: judges answers in an attack's own loop.
        assistant: the attacker's chat model.
        translator: for multilingual attacks; None if there is none.
        fitted: what the attack's `fit` returned for this model (tensors on the CPU).
        folder: where the attack may leave files.
        progress: called with a short line about what is going on.
        base: the base model as a `Target`, for attackers who have it too (completions to train on or to show); None
            outside of the matrix.
    """

    seed: int
    judge: Callable[[Sequence[Judged]], list[Verdict]]
    assistant: ChatModel
    translator: Translator | None = None
    fitted: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    progress: Callable[[str], None] = lambda line: None
    base: Any = None


class PromptAttack(Protocol):
    """An attack that never looks at the model."""

    def prompts(self, chats: Sequence[Chat]) -> list[Attempt]:
        """One or several attempts a chat, in order."""
        ...


class ModelAttack(Protocol):
    """An attack on one model."""

    def run(self, target: Any, chats: Sequence[Chat], resources: Resources) -> list[Attempt]:
        """One or several attempts a chat; a behaviour's attempts succeed if one of them does."""
        ...


@dataclass(frozen=True)
class Aids:
    """What a measure may use beside the two models.

    Attributes:
        seed: of everything random.
        label: of each answer to a plain request: "answered", "refused" or "broken" (compared with its `reference`,
            by default the base's own answer), and why.
        assistant: a chat model that judges or plays the user.
        unseen: of chats those whose request the circuit breakers were not trained on.
        folder: where the measure may leave files.
        progress: called with a short line about what is going on.
    """

    seed: int
    label: Callable[[Sequence[Chat], Sequence[Judged]], list[tuple[str, str]]]
    assistant: ChatModel
    unseen: Callable[[Sequence[Chat]], list[Chat]] = list
    folder: Path = Path()
    progress: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class Measured:
    """What a measure found.

    Attributes:
        findings: figures of both models.
        rows: what they rest on, one a text or question, for JSON Lines.
        notes: what a reader of the table must know (settings, what was left out and why).
    """

    findings: list[Finding]
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Measure(Protocol):
    """One file in measures/."""

    def measure(self, base: Any, rerouted: Any, aids: Aids) -> Measured:
        """Measure both models.

        Raises:
            UserError: what it needs is not there (data, an extra, a judge).
        """
        ...
