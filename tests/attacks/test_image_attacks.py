"""Attacks through the picture, on a tiny random LLaVA: what is sent, how far pixels move, what the files hold."""

from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from rerouting.attacks.blank_image import BlankImage
from rerouting.attacks.image_pgd import ImagePgd
from rerouting.attacks.safety_prompt import WORDS, SafetyPrompt
from rerouting.attacks.text_only import TextOnly
from rerouting.attacks.typographic import Typographic
from rerouting.core.attempt import behaviour_of
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.formatting import encode, render_prompt
from rerouting.models.config import ModelConfig
from rerouting.models.loading import load
from rerouting.models.target_rows import target_rows
from rerouting.pictures.opening import open_picture
from rerouting.targets.target import Target
from tests.attacks.tiny_target import RESOURCES, tiny_target
from tests.data.tokenizers_of_families import CHATML, tiny
from tests.models.tiny_vision import save


def chat(name, image="drawn:test/0", target="Sure, go:"):
    return Chat(name, (Message("user", f"Do {name}", images=(image,) if image else ()),), target=target)


CHATS = [chat("harm"), chat("evil", "drawn:test/3"), chat("wrong", None)]
PGD = ImagePgd(steps=12, generations=2, ending=":", target_tokens=None)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    save("llava", folder)
    return Target(load(ModelConfig(name=str(folder), device="cpu", dtype="float32")), 4)


def loss_on(target, attempt, clean=False):
    sent = attempt.chat.with_images((attempt.trace["clean"],)) if clean else attempt.chat
    prompt = render_prompt(sent, target.tokenizer)
    rows = target_rows([prompt], [encode(target.tokenizer, "Sure, go:")], torch.device("cpu"))
    media = target.tokenizer.image_reader.inputs([prompt], [len(prompt)], sent.images, len(prompt), False)
    return float(rows.losses(target.model, media=media))


def test_pgd_lowers_the_loss_of_the_picture_as_it_comes_back_from_its_file(target, tmp_path):
    attempts = PGD.run(target, CHATS, replace(RESOURCES, folder=tmp_path))
    assert [attempt.chat.id for attempt in attempts] == ["harm", "harm", "evil", "evil", "wrong", "wrong"]
    for attempt in attempts:
        (file,) = attempt.chat.images
        assert Path(file).parent == tmp_path / "pictures" and file.endswith(".png")
        found = loss_on(target, attempt)
        assert abs(found - attempt.trace["loss"]) < 0.02  # rounded to 8 bits
        assert found < attempt.trace["first_loss"] - 0.05
        assert attempt.trace["losses"][0] == attempt.trace["first_loss"]
        assert attempt.chat.request == f"Do {attempt.chat.id}"
    assert attempts[4].trace["clean"] == PGD.picture
    assert len(set(target.answer(attempts))) > 0


def test_no_pixel_leaves_the_ball_or_its_range(target, tmp_path):
    given = replace(PGD, epsilon=5, step_size=4)
    (attempt,) = replace(given, generations=1).run(target, CHATS[:1], replace(RESOURCES, folder=tmp_path))
    clean = numpy.array(open_picture("drawn:test/0").resize((28, 28))).astype(int)
    moved = numpy.abs(numpy.array(open_picture(attempt.chat.images[0])).astype(int) - clean)
    assert moved.max() == attempt.trace["largest_change"] == 5 and (moved > 0).mean() > 0.5


def test_only_the_first_tokens_of_the_target_may_count(target, tmp_path):
    few = replace(PGD, target_tokens=2, generations=1)
    (attempt,) = few.run(target, CHATS[:1], replace(RESOURCES, folder=tmp_path))
    wanted = encode(target.tokenizer, "Sure, go:")[:2]
    prompt = render_prompt(attempt.chat, target.tokenizer)
    rows = target_rows([prompt], [wanted], torch.device("cpu"))
    found = float(rows.losses(target.model, media=rows.media(target.model, [prompt])))
    assert abs(found - attempt.trace["loss"]) < 0.02


def test_steps_fade_unless_told_otherwise(target, tmp_path):
    given = replace(PGD, steps=2, step_size=4, momentum=0.99, generations=1)
    for options, furthest in ((given, 4 + 2), (replace(given, decay=False), 4 + 4)):
        (attempt,) = options.run(target, CHATS[:1], replace(RESOURCES, folder=tmp_path))
        assert (attempt.trace["step"], attempt.trace["largest_change"]) == (2, furthest)


def test_several_at_once_are_what_each_is_alone(target, tmp_path):
    resources = replace(RESOURCES, folder=tmp_path)
    one = replace(PGD, generations=1, momentum=0.0)
    together = one.run(target, CHATS[:2], resources)
    alone = [one.run(target, [each], resources)[0] for each in CHATS[:2]]
    for first, second in zip(together, alone, strict=True):
        assert abs(first.trace["loss"] - second.trace["loss"]) < 0.02


def test_restarts_begin_elsewhere_and_are_attempts_too(target, tmp_path):
    resources = replace(RESOURCES, folder=tmp_path)
    attempts = replace(PGD, restarts=2, generations=1).run(target, CHATS[:1], resources)
    assert len(attempts) == 2 and attempts[0].trace["first_loss"] != attempts[1].trace["first_loss"]
    assert attempts[1].trace["largest_change"] <= PGD.epsilon


def test_a_restart_begins_where_it_does_alone(target, tmp_path):
    resources = replace(RESOURCES, folder=tmp_path)
    again = replace(PGD, restarts=2, generations=1, momentum=0.0)
    together = [one for one in again.run(target, CHATS[:2], resources) if one.chat.id == "evil"]
    alone = again.run(target, CHATS[1:2], resources)
    assert abs(together[1].trace["first_loss"] - alone[1].trace["first_loss"]) < 1e-3


def test_the_safety_prompt_is_part_of_what_is_attacked(target, tmp_path):
    given = replace(PGD, safety_prompt=WORDS, steps=1, generations=1)
    (attempt,) = given.run(target, CHATS[:1], replace(RESOURCES, folder=tmp_path))
    assert attempt.chat.request == f"{WORDS}\n\nDo harm" and behaviour_of(attempt.chat) == "Do harm"


def test_what_cannot_be_attacked(target, tmp_path):
    resources = replace(RESOURCES, folder=tmp_path)
    with pytest.raises(UserError, match="no target"):
        PGD.run(target, [chat("harm", target=None)], resources)
    with pytest.raises(UserError, match="2 pictures"):
        PGD.run(target, [CHATS[0].with_images(("drawn:test/1", "drawn:test/2"))], resources)
    with pytest.raises(UserError, match="at least one"):
        replace(PGD, generations=0).run(target, CHATS[:1], resources)
    with pytest.raises(UserError, match="takes no pictures"):
        PGD.run(tiny_target(tiny(CHATML)), CHATS[:1], resources)


def test_the_baselines_send_what_they_say():
    (blank,), (text,) = BlankImage("blank:9x9").prompts(CHATS[:1]), TextOnly().prompts(CHATS[:1])
    assert blank.chat.images == ("blank:9x9",) and blank.chat.request == "Do harm"
    assert text.chat.images == () and text.chat.request == "Do harm"
    (written,), (steps,) = Typographic().prompts(CHATS[:1]), Typographic(steps=True).prompts(CHATS[:1])
    assert written.chat.images == ("written:Do harm",) and "harm" not in written.chat.request
    assert steps.chat.images == ("steps:Do harm",) and behaviour_of(steps.chat) == "Do harm"
    (prompted,) = SafetyPrompt().prompts(CHATS[:1])
    assert prompted.chat.images == ("drawn:test/0",) and prompted.chat.request.startswith("If the following")
    assert {attempt.chat.id for attempt in (blank, text, written, steps, prompted)} == {"harm"}
