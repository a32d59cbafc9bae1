"""One attack on one model: groups of behaviours, each saved as soon as it is finished."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from rerouting.core.attempt import Attempt
from rerouting.core.contracts import Judged, Resources, Verdict
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_folder
from rerouting.core.progress import bar
from rerouting.core.records import Chat
from rerouting.data.template import prompt_text
from rerouting.evaluation.cases import CaseFile, case_row
from rerouting.models.memory import free_memory, is_out_of_memory
from rerouting.targets.target import Target

GROUP = 64


@dataclass(frozen=True)
class Shard:
    """This process's share of the cases, and how it waits for the others."""

    rank: int = 0
    world: int = 1
    wait: Callable[[], None] = lambda: None


def attack_model(
    name: str,
    attack: Any,
    target: Target,
    chats: Sequence[tuple[str, Chat]],
    resources: Resources,
    file: CaseFile,
    shard: Shard,
) -> None:
    """Attack every behaviour that is not finished yet.

    Args:
        name: shown with the progress.
        attack: see `core.contracts`.
        target: the model.
        chats: behaviours with the name of their set.
        resources: what the attack may use; its judge is a `LoopJudge`.
        file: where cases go.
        shard: which of them are this process's.
    """
    done = file.done([chat for _, chat in chats])
    mine = [pair for at, pair in enumerate(chats) if at % shard.world == shard.rank]
    todo = [pair for pair in mine if pair[1].id not in done]
    loop_judge: Any = resources.judge

    def judge(judged: Sequence[Judged]) -> list[Verdict]:
        with target.uncounted():
            found: list[Verdict] = loop_judge(judged)
        return found

    with bar(name, len(mine), len(mine) - len(todo)) as progress, target.counting():
        resources = replace(resources, judge=judge, progress=progress.note)
        fitted, failure = _fitted(attack, target, resources, file, shard, len(done) < len(chats))
        resources = replace(resources, fitted=fitted)
        size = int(getattr(attack, "group", GROUP))
        for start in range(0, len(todo), size):
            group = todo[start : start + size]
            before, begun, loop_judge.was_asked = target.cost.forward_tokens, time.monotonic(), False
            if failure:
                results = {chat.id: [Attempt(chat, failure=failure)] for _, chat in group}
            else:
                results = attempts_of(attack, target, [chat for _, chat in group], resources)
            tokens = (target.cost.forward_tokens - before) / len(group)
            seconds = (time.monotonic() - begun) / len(group)
            for set_name, chat in group:
                attempts = results[chat.id]
                prompts = [_shown(attempt, target) for attempt in attempts]
                cost = {"forward_tokens": round(tokens), "seconds": round(seconds, 3)}
                used = file.judge if loop_judge.was_asked else None
                file.append(case_row(chat, set_name, attempts, prompts, file, used, **cost))
            progress.advance(len(group))


def attempts_of(
    attack: Any, target: Target, chats: Sequence[Chat], resources: Resources
) -> dict[str, list[Attempt]]:
    """Answered attempts of every chat; what fails for a group is tried one by one, and then recorded."""
    try:
        attempts = attack.run(target, chats, resources) if hasattr(attack, "run") else attack.prompts(chats)
        waiting = [at for at, one in enumerate(attempts) if one.answer is None and one.failure is None]
        answers = target.answer([attempts[at] for at in waiting])
        for at, answer in zip(waiting, answers, strict=True):
            attempts[at] = attempts[at].answered(answer)
    except (UserError, RuntimeError, MemoryError) as error:
        if not isinstance(error, UserError) and not is_out_of_memory(error):
            raise
        free_memory()
        if len(chats) > 1:
            single = [attempts_of(attack, target, [chat], resources) for chat in chats]
            return {name: found for one in single for name, found in one.items()}
        reason = str(error) if isinstance(error, UserError) else "out of memory with a single behaviour"
        return {chats[0].id: [Attempt(chats[0], failure=reason)]}
    found: dict[str, list[Attempt]] = {chat.id: [] for chat in chats}
    for attempt in attempts:
        if attempt.chat.id not in found:
            raise UserError(
                f"the attack gave an attempt for {attempt.chat.id!r}, which it was not asked to attack",
                "let each attempt's chat keep its id, as ask(chat, text) and replace(chat, …) do",
            )
        found[attempt.chat.id].append(attempt)
    silent = "the attack gave no attempt for this behaviour"
    return {chat.id: found[chat.id] or [Attempt(chat, failure=silent)] for chat in chats}


def _fitted(
    attack: Any, target: Target, resources: Resources, file: CaseFile, shard: Shard, needed: bool
) -> tuple[dict[str, torch.Tensor], str]:
    """What the attack learns once a model: from its file, or learned by the first process; or why it could not."""
    if not hasattr(attack, "fit"):
        return {}, ""
    folder = fit_folder(file)
    if shard.rank == 0 and needed and not (folder / "fit.safetensors").exists():
        tensors, note = _learned(attack, target, resources)
        with atomic_folder(folder) as temporary:
            if not note["failure"]:
                save_file(tensors, temporary / "fit.safetensors")
            (temporary / "cost.json").write_text(json.dumps(note), encoding="utf-8")
    shard.wait()
    if (folder / "fit.safetensors").exists():
        return load_file(folder / "fit.safetensors"), ""
    return {}, json.loads((folder / "cost.json").read_text())["failure"] if needed else ""


def _learned(
    attack: Any, target: Target, resources: Resources
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    before, begun = target.cost.forward_tokens, time.monotonic()
    tensors, failure = {}, ""
    try:
        fit = attack.fit(target, resources)
        tensors = {key: value.detach().cpu().contiguous() for key, value in fit.items()}
    except (UserError, RuntimeError, MemoryError) as error:
        if not isinstance(error, UserError) and not is_out_of_memory(error):
            raise
        failure = f"before the first behaviour: {error}"
    spent = {"forward_tokens": target.cost.forward_tokens - before, "seconds": time.monotonic() - begun}
    return tensors, {"failure": failure} | spent


def fit_folder(file: CaseFile) -> Path:
    """Where what an attack learns on a model is kept, with what that took."""
    return file.folder / "fits" / file.name


def _shown(attempt: Attempt, target: Target) -> str:
    """The exact prompt as text."""
    if attempt.failure is not None or attempt.embeddings is not None:
        return ""
    if attempt.ids is not None:
        return str(target.tokenizer.decode(list(attempt.ids)))
    return prompt_text(attempt.chat, target.tokenizer) + attempt.prefill
