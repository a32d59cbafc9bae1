"""Verdicts on every answer, each asked for once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Judged, Verdict
from rerouting.core.errors import UserError
from rerouting.core.files import append_jsonl, read_jsonl, sha256_of
from rerouting.core.progress import bar
from rerouting.core.records import Chat
from rerouting.data.formatting import render_prompt
from rerouting.judges.broken import Answer, Broken
from rerouting.judges.refusal_words import RefusalWords
from rerouting.models.loading import LoadedModel
from rerouting.models.scoring import response_nll
from rerouting.targets.target import Target

BATCH = 16


def key_of(judged: Judged) -> str:
    """Names an answer to a behaviour, whichever attack or model it came from."""
    return sha256_of([judged.behaviour, judged.context, judged.answer])[:24]


class Scorer:
    """Likelihoods of answers under the base model, given the plain request, and the base's own answers to it."""

    def __init__(self, base: LoadedModel, max_new_tokens: int, file: Path) -> None:
        """Go on with what `file` already holds."""
        self.base, self.target, self.file = base, Target(base, max_new_tokens), file
        rows = read_jsonl(file, tolerate_torn=True) if file.exists() else []
        self.known: dict[str, Any] = {row["key"]: row for row in rows}

    def measured(self, chats: Sequence[Chat], judged: Sequence[Judged]) -> list[Judged]:
        """Each answer with its likelihoods and those of its reference; the base is run only for new ones."""
        unique = {chat.id: chat for chat in chats}
        lacking = [chat for chat in unique.values() if f"reference {chat.id}" not in self.known]
        for start in range(0, len(lacking), 64):
            part = lacking[start : start + 64]
            answers = self.target.answer([Attempt(chat) for chat in part])
            self._score([(f"reference {c.id}", c, text) for c, text in zip(part, answers, strict=True)])
        keys = [f"{chat.id} {key_of(one)}" for chat, one in zip(chats, judged, strict=True)]
        wanted = {
            key: (key, chat, one.answer)
            for key, chat, one in zip(keys, chats, judged, strict=True)
            if key not in self.known
        }
        self._score(list(wanted.values()))
        full = []
        for key, chat, one in zip(keys, chats, judged, strict=True):
            own = self.known[f"reference {chat.id}"]
            full.append(
                replace(
                    one,
                    nll=tuple(self.known[key]["nll"]),
                    reference=own["text"],
                    reference_nll=tuple(own["nll"]),
                )
            )
        return full

    def _score(self, items: Sequence[tuple[str, Chat, str]]) -> None:
        with bar("likelihoods under the base", len(items)) as progress:
            for start in range(0, len(items), BATCH):
                part = items[start : start + BATCH]
                sequences = []
                for _, chat, text in part:
                    prompt = render_prompt(chat, self.base.tokenizer)
                    ids = self.base.tokenizer(text, add_special_tokens=False)["input_ids"]
                    sequences.append(([*prompt, *ids], len(prompt)))
                scores = response_nll(self.base.model, sequences, pad_id=self.base.tokenizer.pad_token_id)
                for (key, _, text), nll in zip(part, scores, strict=True):
                    row = {"key": key, "text": text, "nll": [round(value, 4) for value in nll.tolist()]}
                    self.known[key] = row
                    append_jsonl(self.file, row)
                progress.advance(len(part))


def label_of(judged: Judged) -> tuple[str, str]:
    """Answered, refused or broken, and why."""
    reference = Answer(judged.reference or "", judged.reference_nll)
    reason = Broken().reason(Answer(judged.answer, judged.nll), reference)
    if reason is not None:
        return "broken", reason
    return ("refused", "refusal words") if RefusalWords().refused(judged.answer) else ("answered", "")


def verdict_file(out: Path, name: str, judge: Any, options: dict[str, Any]) -> Path:
    """Where a judge's verdicts are kept: other options, another version, or edited code is another file.

    Args:
        out: the matrix's folder.
        name: as the user gave it.
        judge: see `core.contracts`.
        options: as the user gave them.
    """
    used: list[Any] = [options, getattr(judge, "version", "")]
    label, _, attribute = name.partition(".py:")
    if attribute:
        used += [attribute, Path(f"{label}.py").expanduser().read_bytes().hex()]
    return out / "verdicts" / f"{Path(label).name}-{sha256_of(used)[:8]}.jsonl"


def verdicts_of(name: str, judge: Any, judged: Sequence[Judged], file: Path) -> list[Verdict]:
    """One verdict an answer, from the file where it is there; unscored ones are asked for again.

    Args:
        name: shown with the progress.
        judge: see `core.contracts`.
        judged: the answers.
        file: JSON Lines, this judge's own with these options.

    Raises:
        UserError: the judge gave more or fewer verdicts than answers.
    """
    rows = read_jsonl(file, tolerate_torn=True) if file.exists() else []
    known = {row.pop("key"): Verdict(**row) for row in rows if row["yes"] is not None}
    waiting = list({key_of(one): one for one in judged if key_of(one) not in known}.values())
    with bar(f"judge {name}", len(waiting)) as progress:
        for start in range(0, len(waiting), BATCH):
            part = waiting[start : start + BATCH]
            verdicts = judge.verdicts(part)
            if len(verdicts) != len(part):
                raise UserError(
                    f"judge {name} gave {len(verdicts)} verdicts for {len(part)} answers",
                    'return one an answer, in order; Verdict(None, "why") where it cannot tell',
                )
            for one, verdict in zip(part, verdicts, strict=True):
                known[key_of(one)] = verdict
                append_jsonl(file, {"key": key_of(one)} | asdict(verdict))
            progress.advance(len(part))
    return [known[key_of(one)] for one in judged]
