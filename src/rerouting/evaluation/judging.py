"""Verdicts on every answer, each asked for once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Judged, Verdict
from rerouting.core.errors import UserError
from rerouting.core.files import append_jsonl, read_jsonl, sha256_of
from rerouting.core.progress import bar
from rerouting.core.prompts import images_of
from rerouting.core.records import Chat
from rerouting.data.formatting import render_prompt
from rerouting.evaluation.compare import label
from rerouting.judges.broken import answers_of
from rerouting.models.generation import end_tokens
from rerouting.models.loading import LoadedModel
from rerouting.models.memory import in_batches
from rerouting.models.scoring import Said, answer_nll
from rerouting.pictures.opening import named
from rerouting.targets.target import Target

BATCH = 16
Ids = list[int]
Row = dict[str, Any]


def key_of(judged: Judged) -> str:
    """Names an answer to a behaviour, whichever attack or model it came from."""
    return sha256_of([judged.behaviour, judged.context, judged.answer])[:24]


class Scorer:
    """Likelihoods of answers under the base model given what was sent, and the base's own answers to plain requests."""

    def __init__(
        self,
        base: LoadedModel,
        max_new_tokens: int,
        folder: Path,
        rank: int = 0,
        target: Target | None = None,
    ) -> None:
        """Go on with what the folder holds, from all processes; add to this process's own file.

        Args:
            base: the base model.
            max_new_tokens: length at which its own answers are cut.
            folder: where everything is kept.
            rank: number of this process.
            target: gives those answers; None for one that generates them.
        """
        self.base, self.target, self.limit = base, target or Target(base, max_new_tokens), max_new_tokens
        self.pattern = f"{max_new_tokens}-tokens-ends.*.jsonl"
        self.file = folder / self.pattern.replace("*", str(rank))
        self.known: dict[str, Row] = {}
        self.reload()

    def reload(self) -> None:
        """Take in what other processes have measured."""
        self.known |= {row["key"]: row for row in _rows(self.file.parent, self.pattern)}

    def measured(self, chats: Sequence[Chat], judged: Sequence[Judged]) -> list[Judged]:
        """Each answer with its likelihoods and those of its reference; the base is run only for new ones.

        Args:
            chats: the plain request behind each answer.
            judged: the answers, with what was sent.
        """
        plain = [self._prompt(chat) for chat in chats]
        temperatures = [one.temperature for one in judged]
        names = [_reference(ids, t) for ids, t in zip(plain, temperatures, strict=True)]
        for temperature in sorted(set(temperatures)):
            rows = zip(names, plain, temperatures, strict=True)
            self._refer({name: ids for name, ids, t in rows if t == temperature}, chats[0], temperature)
        sent = [
            ids if one.sent is None and not one.prefill else self._prompt(one.sent or chat, one.prefill)
            for ids, chat, one in zip(plain, chats, judged, strict=True)
        ]
        keys = [sha256_of([named(ids), one.answer])[:24] for ids, one in zip(sent, judged, strict=True)]
        items = zip(keys, sent, judged, strict=True)
        new = {key: (key, ids, one.answer) for key, ids, one in items if key not in self.known}
        self._score(list(new.values()))
        found = []
        for name, key, one in zip(names, keys, judged, strict=True):
            own, given = self.known[name], self.known[key]
            beside = {
                "reference": own["text"],
                "reference_nll": tuple(own["nll"]),
                "reference_end": own["end"],
            }
            found.append(replace(one, nll=tuple(given["nll"]), end=given["end"], **beside))
        return found

    def _refer(self, prompts: dict[str, Ids], chat: Chat, temperature: float) -> None:
        """The base's own answers to plain prompts, where they are not known yet, with their likelihoods."""
        lacking = [pair for pair in prompts.items() if pair[0] not in self.known]
        for start in range(0, len(lacking), 64):
            part = lacking[start : start + 64]
            attempts = [Attempt(chat.with_images(images_of(ids)), ids=tuple(ids)) for _, ids in part]
            answers = self.target.answer(attempts, temperature=temperature)
            self._score([(*pair, text) for pair, text in zip(part, answers, strict=True)])

    def _prompt(self, chat: Chat, prefill: str = "") -> Ids:
        return render_prompt(chat, self.base.tokenizer, prefill)

    def _score(self, items: Sequence[tuple[str, Ids, str]]) -> None:
        # like lengths pad little, and answers to one prompt share it where they are packed
        items = sorted(items, key=lambda item: (len(item[1]), list(item[1])))
        with bar("likelihoods under the base", len(items)) as progress:
            for start in range(0, len(items), BATCH):
                part = items[start : start + BATCH]
                said = []
                for _, prompt, text in part:
                    ids = self.base.tokenizer(text, add_special_tokens=False)["input_ids"]
                    # a text is not always read back as the tokens that it was written with
                    said.append(Said(prompt, ids, ended=len(ids) < 0.9 * self.limit))
                scores = in_batches(self._nll, said, BATCH)
                for (key, _, text), (nll, end) in zip(part, scores, strict=True):
                    row: Row = {"key": key, "text": text, "nll": [round(value, 4) for value in nll]}
                    row["end"] = None if end is None else round(end, 4)
                    self.known[key] = row
                    append_jsonl(self.file, row)
                progress.advance(len(part))

    def _nll(self, said: Sequence[Said]) -> list[tuple[list[float], float | None]]:
        pad_id, ends = self.base.tokenizer.pad_token_id, sorted(end_tokens(self.base.model))
        return answer_nll(self.base.model, said, ends=ends, pad_id=pad_id, batch_size=len(said))


@dataclass
class LoopJudge:
    """The deciding judge as attacks ask it while they search: it sees what it will see in the end.

    Attributes:
        judge: see `core.contracts`.
        scorer: measures likelihoods for a judge that uses them.
        chats: the plain requests by behaviour and context.
        was_asked: whether the attack at hand has used it.
    """

    judge: Any
    scorer: Scorer
    chats: dict[tuple[str, str], Chat]
    was_asked: bool = False

    def __call__(self, judged: Sequence[Judged]) -> list[Verdict]:
        """One verdict an answer."""
        self.was_asked = True
        if getattr(self.judge, "uses_likelihoods", False):
            judged = self.scorer.measured([self.chats[one.behaviour, one.context] for one in judged], judged)
        verdicts: list[Verdict] = self.judge.verdicts(judged)
        return verdicts


def _reference(prompt: Ids, temperature: float) -> str:
    own = named(prompt)
    return f"reference {sha256_of([own, temperature] if temperature else own)[:24]}"


def label_of(judged: Judged) -> tuple[str, str]:
    """Answered, refused or broken, and why; "" for an answer in another language, which the rules cannot read."""
    if judged.language != "en":
        return "", "not English"
    found = label(*answers_of(judged))
    return found["label"], found["reason"] or ""


@dataclass(frozen=True)
class VerdictFile:
    """One judge's verdicts in JSON Lines; each process adds to a file of its own.

    Attributes:
        folder: where they are.
        identity: names the judge with everything that its verdicts depend on.
        rank: number of this process.
    """

    folder: Path
    identity: str
    rank: int = 0

    def known(self) -> dict[str, Verdict]:
        """All processes' verdicts; of two on one answer a scored one."""
        rows = _rows(self.folder, f"{self.identity}.*.jsonl")
        rows.sort(key=lambda row: row["yes"] is not None)
        return {row.pop("key"): Verdict(**row) for row in rows}

    def append(self, key: str, verdict: Verdict) -> None:
        """Add one."""
        append_jsonl(self.folder / f"{self.identity}.{self.rank}.jsonl", {"key": key} | asdict(verdict))


def verdicts_of(
    name: str, judge: Any, judged: Sequence[Judged], file: VerdictFile, again: bool = True
) -> list[Verdict]:
    """One verdict an answer, from the file where it is there.

    Args:
        name: shown with the progress.
        judge: see `core.contracts`.
        judged: the answers, measured.
        file: where verdicts are kept.
        again: ask once more for those that are unscored.

    Raises:
        UserError: the judge gave more or fewer verdicts than answers.
    """
    known = {key: one for key, one in file.known().items() if one.yes is not None or not again}
    keys = [_verdict_key(judge, one) for one in judged]
    waiting = list({key: one for key, one in zip(keys, judged, strict=True) if key not in known}.items())
    with bar(f"judge {name}", len(waiting)) as progress:
        for start in range(0, len(waiting), BATCH):
            part = waiting[start : start + BATCH]
            given = judge.verdicts([one for _, one in part])
            if len(given) != len(part):
                raise UserError(
                    f"judge {name} gave {len(given)} verdicts for {len(part)} answers",
                    'return one an answer, in order; Verdict(None, "why") where it cannot tell',
                )
            for (key, _), verdict in zip(part, given, strict=True):
                known[key] = verdict
                file.append(key, verdict)
            progress.advance(len(part))
    return [known[key] for key in keys]


def _rows(folder: Path, pattern: str) -> list[Row]:
    files = sorted(folder.glob(pattern))
    return [row for file in files for row in read_jsonl(file, tolerate_torn=True)]


def _verdict_key(judge: Any, one: Judged) -> str:
    if not getattr(judge, "uses_likelihoods", False):
        return sha256_of([key_of(one), one.language])[:24]
    return sha256_of(
        [key_of(one), one.language, one.nll, one.end, one.reference, one.reference_nll, one.reference_end]
    )[:24]
