"""White-box attacks on text and states of a request with a picture: the picture is in sight, in search and answer."""

from dataclasses import replace

import pytest
import torch

from rerouting.attacks.embedding import Embedding
from rerouting.attacks.gcg import Gcg
from rerouting.attacks.latent_pgd import LatentPgd
from rerouting.core.attempt import Attempt
from rerouting.core.records import Chat, Message
from rerouting.data.formatting import encode, render_prompt
from rerouting.models.config import ModelConfig
from rerouting.models.loading import load
from rerouting.models.target_rows import target_rows
from rerouting.targets.slots import with_suffix
from rerouting.targets.target import Target
from rerouting.targets.target_loss import losses_of, target_pair
from tests.attacks.tiny_target import RESOURCES
from tests.models.tiny_vision import save

GCG = Gcg(steps=2, candidates=8, length=4, answers=1, ascii_only=False)
EMBEDDING = Embedding(tokens=3, steps=4)


def chat(name, image):
    return Chat(name, (Message("user", f"Do {name}", images=(image,)),), target="Sure, go:")


CHATS = [chat("harm", "drawn:test/0"), chat("evil deeds", "drawn:test/3"), chat("harm", "drawn:test/7")]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    save("llava", folder)
    return Target(load(ModelConfig(name=str(folder), device="cpu", dtype="float32")), 4)


def loss_on(target, prompt):
    """Of the target after token ids with pictures, by the family's own code."""
    rows = target_rows([prompt], [encode(target.tokenizer, "Sure, go:")], torch.device("cpu"))
    media = target.tokenizer.image_reader.inputs([prompt], [len(prompt)], prompt.images, len(prompt), False)
    assert media["pixel_values"].ndim >= 3
    return float(rows.losses(target.model, media=media))


def test_gcg_searches_with_the_picture_in_sight(target):
    found = GCG.run(target, CHATS, RESOURCES)
    for attempt, own in zip(found, CHATS, strict=True):
        prompt = target.prompt_ids(attempt)
        assert prompt.images == own.images and attempt.trace["reads_back"]
        assert abs(loss_on(target, prompt) - attempt.trace["loss"]) < 1e-3
        assert len(prompt) > len(render_prompt(own, target.tokenizer))
    assert found[0].trace["first_loss"] != found[2].trace["first_loss"]  # the same request, another picture
    assert len(target.answer(found)) == 3


def test_gcg_without_keys_and_values_finds_the_same(target, monkeypatch):
    kept = GCG.run(target, CHATS[:1], RESOURCES)
    monkeypatch.setattr("rerouting.attacks.gcg._Search._prefix", lambda search: None)
    (whole,) = GCG.run(target, CHATS[:1], RESOURCES)
    assert whole.ids == kept[0].ids and abs(whole.trace["loss"] - kept[0].trace["loss"]) < 1e-3


def test_soft_tokens_stand_behind_the_picture(target):
    found = EMBEDDING.run(target, CHATS, RESOURCES)
    marks = "x" * EMBEDDING.tokens  # the tiny tokenizer knows letters
    for attempt, own in zip(found, CHATS, strict=True):
        prompt = render_prompt(with_suffix(own, marks), target.tokenizer)
        assert abs(loss_on(target, prompt) - attempt.trace["first_loss"]) < 1e-3
        assert attempt.trace["best_loss"] < attempt.trace["first_loss"]
    same = replace(EMBEDDING, steps=0).run(target, CHATS, RESOURCES)
    plain = [Attempt(with_suffix(own, marks)) for own in CHATS]
    assert target.answer(same) == target.answer(plain)  # unmoved, they are the tokens


def test_losses_of_a_prompt_see_its_picture(target):
    pairs = [target_pair(own, target.tokenizer) for own in CHATS]
    found = losses_of(target, pairs)
    for (prompt, _), loss in zip(pairs, found.tolist(), strict=True):
        assert abs(loss_on(target, prompt) - loss) < 1e-3
    assert abs(float(found[0] - found[2])) > 1e-4


def test_states_are_moved_with_the_picture_in_sight(target, tmp_path):
    resources = replace(RESOURCES, folder=tmp_path)
    found = LatentPgd(layers=[1], steps=3).run(target, CHATS, resources)
    for attempt, own in zip(found, CHATS, strict=True):
        first = loss_on(target, render_prompt(own, target.tokenizer))
        assert abs(first - attempt.trace["first_loss"]) < 1e-3 > attempt.trace["best_loss"] - first
        assert attempt.answer is not None
