"""From a recipe's sources to the tokenised streams of training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.files import sha256_of
from rerouting.core.progress import bar
from rerouting.core.records import Chat
from rerouting.core.refusal import declines
from rerouting.data.cache import CompletionCache
from rerouting.data.config import SourceConfig
from rerouting.data.filtering import behaviours, calls_of, drop_contaminated, drop_like_calls
from rerouting.data.formatting import Example, tokenise_all
from rerouting.data.loading import chats_of
from rerouting.data.mixing import drop_requests, mix
from rerouting.data.sampling import sample_completions
from rerouting.models.generation import generate
from rerouting.models.loading import LoadedModel
from rerouting.pipeline.levers import Levers
from rerouting.training.config import RunConfig
from rerouting.training.loop import TrainingData

IDENTICAL = 0.95
"""Retain items are dropped only when they are evaluation prompts: they should share their forms ("What is the …?")."""


@dataclass
class Preparation:
    """Builds the streams of one run and counts what became of every source.

    Args:
        config: the run.
        loaded: base model and tokenizer.
        digest: hash of the base model's weights, part of the cache's keys.
        cache: where on-policy completions are kept.
    """

    config: RunConfig
    loaded: LoadedModel
    digest: str
    cache: CompletionCache
    report: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    refused: list[Chat] = field(default_factory=list, init=False)
    """Refusals found in the circuit-breaker set, which are retained."""
    _calls: list[str] = field(default_factory=list, init=False)
    """Function calls of the evaluation sets."""

    def streams(self) -> TrainingData:
        """Load, filter, sample, mix and tokenise.

        Raises:
            UserError: a source or a stream is unusable.
        """
        data = self.config.data
        sets = [chat for one in self.config.evaluation.sets for chat in self._seen("sets", one.source)]
        harmful_sets = [chat for source in data.evaluation for chat in self._seen("evaluation", source)]
        harmful_sets += [chat for chat in sets if chat.target]
        self._calls = calls_of([*sets, *harmful_sets])
        harmful = self._stream(
            "circuit_breaker", data.circuit_breaker, behaviours(harmful_sets), data.max_bleu
        )
        retain = self._stream("retain", data.retain, behaviours(sets), IDENTICAL)
        levers = Levers(data, self.loaded.tokenizer, self.config.seed, self.report)
        return TrainingData(
            circuit_breaker=levers.late(
                self._tokens("circuit_breaker", levers.circuit_breaker(harmful, retain))
            ),
            retain=self._tokens("retain", levers.retain(harmful, retain)),
            held_out_harmful=self._held_out("held_out_harmful", data.held_out_harmful),
            held_out_benign=self._held_out("held_out_benign", data.held_out_benign),
        )

    def _stream(
        self, name: str, sources: Sequence[SourceConfig], references: list[str], threshold: float | None
    ) -> list[Chat]:
        """One chat for every place of the run, mixed by weight."""
        if not sources:
            raise UserError(f"data.{name} has no source", f"give data.{name} at least one, as recipes do")
        optim = self.config.training
        size = (optim.retain_batch_size if name == "retain" else None) or optim.batch_size
        chosen = [source for source in sources if source.weight > 0]
        parts = [(self._answered(name, source, references, threshold), source.weight) for source in chosen]
        if name == "retain" and self.refused:
            parts.append((self.refused, _share_by_number(self.refused, parts)))
        seed = self.config.seed + (name == "retain")
        mixed = mix(parts, optim.steps * size, seed)
        return drop_requests(mixed, self.config.data.drop_request, seed)

    def _seen(self, name: str, source: SourceConfig) -> list[Chat]:
        """What is evaluated on, and never trained on; noted in the report."""
        chats = chats_of(source)
        row = {
            "name": source.name,
            "options": source.options,
            "chats": len(chats),
            "sha256": sha256_of(chats),
        }
        self.report.setdefault(name, []).append(row)
        return chats

    def _held_out(self, name: str, sources: Sequence[SourceConfig]) -> list[Example]:
        chats = [chat for source in sources for chat in self._answered(name, source, [], None)]
        return self._tokens(name, chats) if chats else []

    def _answered(
        self, name: str, source: SourceConfig, references: list[str], threshold: float | None
    ) -> list[Chat]:
        """A source's chats, filtered and with responses."""
        chats = chats_of(source)
        row: dict[str, Any] = {
            "name": source.name,
            "options": source.options,
            "chats": len(chats),
            "sha256": sha256_of(chats),
        }
        self.report.setdefault(name, []).append(row)
        if references and threshold is not None and self.config.data.max_bleu is not None:
            chats, dropped = drop_contaminated(chats, references, threshold)
            row["dropped_like_evaluation"] = [asdict(item) for item in dropped]
            sys.stderr.write(
                f"{name}, {source.name} {source.options.get('kind', '')}: {len(dropped)} of {row['chats']} dropped, "
                f"BLEU > {threshold} against an evaluation prompt\n"
            )
            if not chats:
                raise UserError(
                    f"every item of data source {source.name} in data.{name} is an evaluation prompt or like one",
                    "train on other data than is evaluated on, or raise data.max_bleu",
                )
        chats = self._unlike_calls(name, chats, row)
        if source.on_policy:
            before, chats = len(chats), self._sampled(chats, source, row)
            row["dropped_without_completion"] = before - len(chats)
            if source.refusals == "retain" and name != "retain":
                chats = self._without_refusals(name, chats, row)
        row["used"] = len(chats)
        return chats

    def _unlike_calls(self, name: str, chats: list[Chat], row: dict[str, Any]) -> list[Chat]:
        """Without those whose call is too like an evaluation set's, where that was asked for."""
        most = self.config.data.max_call_bleu
        if most is None or name != "circuit_breaker":
            return chats
        kept, dropped = drop_like_calls(chats, self._calls, most)
        row["dropped_like_evaluation_call"] = [asdict(item) for item in dropped]
        if not kept:
            raise UserError(
                f"every call of data source {row['name']} in data.{name} is like one that is evaluated on",
                "take other data, or raise data.max_call_bleu",
            )
        return kept

    def _without_refusals(self, name: str, chats: list[Chat], row: dict[str, Any]) -> list[Chat]:
        refused = [chat for chat in chats if not chat.meta["prefix"] and declines(chat.response or "")]
        row["refusals"] = len(refused)
        if len(refused) == len(chats):
            raise UserError(
                f"the model refused every request of {row['name']} in data.{name}: nothing is left to reroute",
                "raise `prefixed`, so that it answers some of them after an affirmative opening",
            )
        if name == "circuit_breaker":
            self.refused += refused
        left = set(map(id, refused))
        return [chat for chat in chats if id(chat) not in left]

    def _sampled(self, chats: list[Chat], source: SourceConfig, row: dict[str, Any]) -> list[Chat]:
        """The base model's own completions, from the cache where they were sampled before; `row` says which."""
        row["completions"] = "from the cache"
        sampling = self.config.sampling
        seed = self.config.seed if sampling.seed is None else sampling.seed
        settings = asdict(sampling) | {"seed": seed}
        if source.max_new_tokens is not None:
            settings["max_new_tokens"] = source.max_new_tokens

        def complete(prompts: list[list[int]]) -> list[list[int]]:
            row["completions"] = "sampled"
            with bar(f"sampling {source.name} {source.options.get('kind', '')}", len(prompts)) as progress:
                return generate(
                    self.loaded.model,
                    self.loaded.tokenizer,
                    prompts,
                    do_sample=sampling.temperature > 0,
                    progress=progress.advance,
                    **settings | {"temperature": sampling.temperature or 1.0},
                )

        identity = {"model": self.digest, "dtype": str(self.loaded.dtype), **settings}
        return sample_completions(
            complete,
            chats,
            self.loaded.tokenizer,
            prefixed=source.prefixed,
            prefix_ending=source.prefix_ending,
            seed=seed,
            max_prompt=self.config.data.max_prompt,
            cache=self.cache,
            identity=identity,
        )

    def _tokens(self, name: str, chats: Sequence[Chat]) -> list[Example]:
        data = self.config.data
        harmful = name in ("circuit_breaker", "held_out_harmful")
        limits: dict[str, Any] = (
            {"max_prompt": data.max_prompt, "max_response": data.max_response, "mask": data.mask}
            if harmful
            else {
                "max_prompt": None,
                "max_response": None,
                "max_total": data.max_retain,
                "mask": data.retain_mask,
            }
        )
        examples, masked = tokenise_all(
            chats, self.loaded.tokenizer, close=data.close, cut=data.cut, **limits
        )
        self.report[name].append({"examples": len(examples), "left_out_fully_masked": masked})
        return examples


def _share_by_number(chats: Sequence[Chat], parts: Sequence[tuple[list[Chat], float]]) -> float:
    """The weight by which chats are drawn as often as those of the other parts are on average."""
    return sum(weight for _, weight in parts) * len(chats) / sum(len(own) for own, _ in parts)
