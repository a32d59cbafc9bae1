"""Faked exchanges before the request, on a tiny random model."""

from dataclasses import replace

import pytest

from rerouting.attacks.many_shot import ManyShot
from rerouting.core.contracts import Resources
from rerouting.core.records import Chat, Message
from rerouting.models.config import ModelConfig
from rerouting.models.loading import load
from rerouting.targets.completions import restored
from rerouting.targets.target import Target
from tests.pipeline.tiny_run import save_model

CHATS = [
    Chat("a", (Message("user", "Do a bad thing"),)),
    Chat("b", (Message("system", "Be brief."), Message("user", "Another"))),
]
RESOURCES = Resources(0, lambda judged: [], assistant=None)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("model"))
    return Target(load(ModelConfig(name=str(folder), dtype="float32", device="cpu")), 8)


def test_shots_are_the_bases_answers_drawn_for_each_behaviour(target, tmp_path):
    attack = ManyShot(shots=3, pool=6, tokens=100)
    resources = replace(RESOURCES, base=target, folder=tmp_path)
    resources = replace(resources, fitted=attack.fit(target, resources))
    first, second = attack.run(target, CHATS, resources)
    assert [turn.role for turn in first.chat.messages] == ["user", "assistant"] * 3 + ["user"]
    assert second.chat.messages[0].role == "system" and second.chat.request == "Another"
    replies = {one.response for one in restored(resources.fitted)}
    shown = [
        [turn.content for turn in one.chat.messages if turn.role == "assistant"] for one in (first, second)
    ]
    assert {*shown[0], *shown[1]} <= replies and shown[0] != shown[1]
    assert attack.run(target, CHATS[1:], resources) == [second], "whatever else is attacked"
    other = attack.run(target, CHATS, replace(resources, seed=1))
    assert other[0].chat != first.chat
    assert first.trace["shots"] == 3 and first.trace["replies"] == "base completions"


def test_as_many_shots_as_the_context_holds(target, monkeypatch):
    for positions in (700, 60):
        monkeypatch.setattr(target.model.config, "max_position_embeddings", positions)
        one = ManyShot(shots=32).run(target, CHATS[:1], RESOURCES)[0]
        assert one.trace["shots"] == (len(one.chat.messages) - 1) / 2 < 32
        assert one.trace["prompt_tokens"] == len(target.prompt_ids(one))
        assert one.trace["shots"] == 0 or one.trace["prompt_tokens"] <= positions - 8
    assert one.trace["shots"] == 0 and one.trace["replies"] == "openings"
