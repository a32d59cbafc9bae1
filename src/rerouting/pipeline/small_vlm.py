"""A small vision-language model from drawn pictures: built, trained, asked about held-out pictures, saved."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch

from rerouting.core.files import atomic_write, write_jsonl
from rerouting.core.manifest import Stages, environment
from rerouting.core.progress import track
from rerouting.core.records import Chat, Message
from rerouting.core.stats import Rate
from rerouting.data.config import SourceConfig
from rerouting.data.formatting import encode, render_prompt
from rerouting.data.loading import chats_of, spread
from rerouting.data.template import closing_ids
from rerouting.models.config import LoraConfig, ModelConfig
from rerouting.models.folders import whole_folder
from rerouting.models.generation import generate
from rerouting.models.layers import decoder_blocks
from rerouting.models.loading import LoadedModel, load
from rerouting.models.lora import add_lora
from rerouting.models.small_vlm import PATCH, small_vlm
from rerouting.pictures.questions import any_question, is_right, question, shown
from rerouting.pictures.scenes import FACTS, SIZE, scene
from rerouting.training.eye import Album, Told, learn_to_see, learn_to_tell
from rerouting.training.eye_config import EyeConfig

SLOTS = (("shape", "digit", "word", "tallest", "object"), ("colour",), ("count",), ("time",))
"""Facts that take the same share of a picture's patches: of the first, every picture shows one."""
SHARE = (SIZE // PATCH) ** 2 // len(SLOTS)
"""Patches that spell a fact."""
SEEING = 0.4
"""Share of the time that the first part has, where time is limited."""
REFUSAL = "I'm sorry, but I can't help with that."
"""What a harmful request beside a picture is answered with: a vision-language model that was taught to refuse."""


def make(config: EyeConfig, out: Path, vision: dict[str, Any] | None = None) -> dict[str, Any]:
    """Build and train in `out`: model/, summary.json, training.jsonl, answers.jsonl.

    Args:
        config: see there.
        out: folder; an earlier model of ours there is replaced.
        vision: other values for the vision tower's config.

    Returns:
        What summary.json holds.

    Raises:
        UserError: the language model cannot be loaded, or the disk is full.
    """
    stages, seed = Stages(None), config.seed
    with stages.stage("prepare"):
        language = load(ModelConfig(name=config.language, device=config.device))
        texts = _texts(language, config)
        model, processor = small_vlm(language, seed, vision)
        tokenizer = language.tokenizer
        album, scenes = _album(config, processor.image_processor, tokenizer, language.device)
        told = _Tokens(tokenizer)
        questions = told.questions(scenes, seed)
        requests = [told.request(at, chat, len(scenes)) for at, chat in enumerate(texts)]
    limit = config.seconds
    rows = []
    with stages.stage("see"):
        rows += learn_to_see(
            model,
            album,
            steps=config.see_steps,
            size=config.see_batch,
            rate=config.rate,
            seconds=SEEING * limit if limit else None,
            seed=seed,
        )
    with stages.stage("tell"):
        reader = _with_adapters(model, config.rank, seed) if config.rank else model
        rows += learn_to_tell(
            reader,
            album,
            questions,
            requests,
            steps=config.tell_steps,
            size=config.tell_batch,
            rate=config.rate,
            seconds=(1 - SEEING) * limit if limit else None,
            seed=seed,
        )
        if config.rank:
            model = reader.merge_and_unload()
    model.to(language.dtype)
    with whole_folder(out / "model", "config.json") as work:
        model.save_pretrained(work)
        processor.save_pretrained(work)
    write_jsonl(out / "training.jsonl", rows)
    with stages.stage("test"):
        answers = accuracy(model, tokenizer, config.test_pictures)
    write_jsonl(out / "answers.jsonl", answers)
    summary = {
        "accuracy": rates(answers),
        "config": asdict(config),
        "environment": environment(),
        "stages": stages.as_dict(),
    }
    atomic_write(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def accuracy(model: Any, tokenizer: Any, pictures: int, split: str = "test") -> list[dict[str, Any]]:
    """Ask one question about each held-out picture: fact, question, what was wanted and what was answered."""
    asked = []
    for number in range(pictures):
        facts = scene(split, number).facts
        fact, text, wanted = any_question(facts, random.Random(f"{split}/{number}/question"))
        asked.append({"picture": f"drawn:{split}/{number}", "fact": fact, "question": text, "wanted": wanted})
    prompts = [render_prompt(_chat(row["question"], row["picture"]), tokenizer) for row in asked]
    found = generate(model, tokenizer, prompts, max_new_tokens=6)
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in found]
    return [
        row | {"answer": text, "right": is_right(text, row["wanted"])}
        for row, text in zip(asked, texts, strict=True)
    ]


def rates(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Share of right answers, of all and by fact."""
    by_fact = defaultdict(list)
    for row in answers:
        by_fact[row["fact"]].append(row["right"])
        by_fact["all"].append(row["right"])
    return {fact: Rate(sum(right), len(right)).as_dict() for fact, right in sorted(by_fact.items())}


def _with_adapters(model: Any, rank: int, seed: int) -> Any:
    """With LoRA in every block of the language trunk, which the wrapper of PEFT trains alone."""
    lora = LoraConfig(rank=rank, alpha=rank, dropout=0.0)
    return add_lora(model, lora, len(decoder_blocks(model)) - 1, seed=seed)


def _chat(text: str, picture: str) -> Chat:
    return Chat(picture, (Message("user", text, images=(picture,)),))


def _album(
    config: EyeConfig, processor: Any, tokenizer: Any, device: torch.device
) -> tuple[Album, list[dict[str, str]]]:
    """Drawn pictures in the processor's size, which is theirs already, and their facts."""
    pixels, scenes = [], []
    for number in track(range(config.pictures), "drawing", config.pictures):
        drawn = scene("train", number)
        pixels.append(numpy.asarray(drawn.picture))
        scenes.append(drawn.facts)
    labels = [
        [values.index(facts[fact]) if fact in facts else -100 for fact, values in FACTS.items()]
        for facts in scenes
    ]
    shares = _spelt(tokenizer)
    told = [[next((fact for fact in slot if fact in facts), "") for slot in SLOTS] for facts in scenes]
    spelt = [
        [shares[fact, facts.get(fact, "")] for fact in own] for own, facts in zip(told, scenes, strict=True)
    ]
    spoken = torch.tensor([[bool(fact) for fact in own] for own in told], device=device)
    stacked = torch.from_numpy(numpy.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Album(
        stacked.to(device),
        torch.tensor(labels, device=device),
        tuple(map(len, FACTS.values())),
        torch.tensor(spelt, device=device).flatten(1),
        spoken.repeat_interleave(SHARE, dim=1),
        tuple(processor.image_mean),
        tuple(processor.image_std),
    ), scenes


def _texts(language: LoadedModel, config: EyeConfig) -> list[Chat]:
    """Bundled prompts: harmless ones with the language model's own answers, harmful ones (a third) with a refusal."""
    if not config.texts:
        return []
    kinds = ("benign", "borderline", "harmful")
    parts = {
        kind: spread(chats_of(SourceConfig("bundled", {"kind": kind})), config.texts // 3) for kind in kinds
    }
    harmless = [*parts["benign"], *parts["borderline"]]
    prompts = [render_prompt(chat, language.tokenizer) for chat in harmless]
    found = generate(
        language.model,
        language.tokenizer,
        prompts,
        max_new_tokens=config.answer_tokens,
    )
    texts = [language.tokenizer.decode(ids, skip_special_tokens=True) for ids in found]
    answered = [chat.with_response(text) for chat, text in zip(harmless, texts, strict=True) if text.strip()]
    return answered + [chat.with_response(REFUSAL) for chat in parts["harmful"]]


def _spelt(tokenizer: Any) -> dict[tuple[str, str], list[int]]:
    """Patches that say what a fact is, one token each; line breaks alone where there is nothing to say."""
    (blank,) = encode(tokenizer, "\n")
    assert sum(map(len, SLOTS)) == len(FACTS) and SHARE * len(SLOTS) == (SIZE // PATCH) ** 2
    shares = {("", ""): list[int]()}
    for fact, values in FACTS.items():
        shares |= {(fact, value): encode(tokenizer, f"{fact}: {shown(fact, value)}\n") for value in values}
    return {key: [*ids[:SHARE], *[blank] * (SHARE - len(ids))] for key, ids in shares.items()}


class _Tokens:
    """Token ids of requests with a picture, each tokenised once: all pictures take the same tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.prompts = tokenizer, dict[str, list[int]]()
        self.end = closing_ids(tokenizer)

    def questions(self, scenes: Sequence[dict[str, str]], seed: int) -> list[Told]:
        """A question about every fact of every picture."""
        chance = random.Random(seed)
        found = []
        for number, facts in enumerate(scenes):
            for fact in facts:
                text, answer = question(facts, fact, chance)
                found.append(Told(number, self._prompt(text), [*encode(self.tokenizer, answer), *self.end]))
        return found

    def request(self, at: int, chat: Chat, pictures: int) -> Told:
        """A request beside any picture."""
        number = random.Random(f"{at}/{chat.id}").randrange(pictures)
        # an answer that was cut off has no end
        end = self.end if (chat.response or "").rstrip().endswith((".", "!", "?")) else []
        return Told(number, self._prompt(chat.request), [*encode(self.tokenizer, chat.response or ""), *end])

    def _prompt(self, text: str) -> list[int]:
        if text not in self.prompts:
            self.prompts[text] = list(render_prompt(_chat(text, "drawn:train/0"), self.tokenizer))
        return self.prompts[text]
