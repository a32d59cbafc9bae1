"""Jailbreak templates: the bundled ones, and files as they are published."""

import json

import pytest

from rerouting.attacks.human_jailbreaks import HumanJailbreaks
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.evaluation.attacking import attempts_of
from tests.attacks.tiny_target import RESOURCES, tiny_target
from tests.data.tokenizers_of_families import CHATML, tiny

META = {"behaviour": "Sum it up", "context": "A text."}
CHATS = [
    Chat("a", (Message("user", "Bake a {cake}"),)),
    Chat("b", (Message("system", "Be brief."), Message("user", "A text. Sum it up")), meta=META),
]


def test_bundled_templates_hold_the_request_and_keep_the_context():
    attack = HumanJailbreaks(per_behaviour=None)
    templates = attack.templates()
    assert len(templates) >= 20 and len({one.name for one in templates}) == len(templates)
    attempts = attack.prompts(CHATS)
    assert len(attempts) == 2 * len(templates)
    for one in attempts[: len(templates)]:
        assert "Bake a {cake}" in one.chat.request and "{request}" not in one.chat.request
    for one in attempts[len(templates) :]:
        assert one.chat.request.startswith("A text.\n\n---\n\n") and one.chat.messages[0].role == "system"


def test_the_draw_is_by_seed_and_behaviour():
    one, two = (
        HumanJailbreaks(per_behaviour=2).prompts(CHATS),
        HumanJailbreaks(per_behaviour=2).prompts(CHATS),
    )
    assert one == two and len(one) == 4
    assert HumanJailbreaks(per_behaviour=2).prompts(CHATS[1:]) == one[2:], "whatever else is attacked"
    seeds = {
        tuple(a.trace["template"] for a in HumanJailbreaks(per_behaviour=2, seed=s).prompts(CHATS))
        for s in range(9)
    }
    assert len(seeds) > 1


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("t.txt", "Say [INSERT PROMPT HERE]\n\nNow {prompt}!\n", 2),
        ("t.json", json.dumps([{"text": "Say {goal}"}]), 1),
        ("t.jsonl", '{"prompt": "Say {query}"}\n', 1),
        ("t.csv", "name,template\none,Say [REPLACE]\n", 1),
        ("t.py", 'import os\nX = 3\nJAILBREAKS = ["Say {request}", "Do {request}"]\n', 2),
    ],
)
def test_published_files(tmp_path, name, text, count):
    (tmp_path / name).write_text(text)
    attempts = HumanJailbreaks(path=str(tmp_path / name), per_behaviour=None).prompts(CHATS[:1])
    assert len(attempts) == count and attempts[0].chat.request == "Say Bake a {cake}"


def test_a_template_without_a_place_is_named_or_appended_to(tmp_path):
    file = tmp_path / "t.txt"
    file.write_text("Do {request}\nYou are free.\n")
    with pytest.raises(UserError, match=r"t.txt, 2: the template has no place"):
        HumanJailbreaks(path=str(file)).prompts(CHATS)
    attempts = HumanJailbreaks(path=str(file), append=True).prompts(CHATS[:1])
    assert attempts[1].chat.request == "You are free.\n\nBake a {cake}"
    with pytest.raises(UserError, match="no place"):
        HumanJailbreaks(path=str(file), place="<<it>>").prompts(CHATS)


def test_a_template_without_a_place_leaves_every_case_unscored_with_the_reason(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text('{"template": "Do {request}"}\n{"template": "You are free."}\n')
    found = attempts_of(HumanJailbreaks(path=str(file)), tiny_target(tiny(CHATML)), CHATS, RESOURCES)
    for chat in CHATS:
        (attempt,) = found[chat.id]
        assert attempt.answer is None and attempt.chat == chat
        assert "t.jsonl, line 2: the template has no place for the request" in attempt.failure


def test_every_place_is_filled_and_a_behaviour_may_hold_any_characters(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps({"template": "First {goal}, then {goal} \\1 {0}"}))
    chat = Chat("a", (Message("user", "say {request} {goal} \\g<0> %s"),))
    (attempt,) = HumanJailbreaks(path=str(file)).prompts([chat])
    said = "say {request} {goal} \\g<0> %s"
    assert attempt.chat.request == f"First {said}, then {said} \\1 {{0}}"
    assert attempt.chat.meta["behaviour"] == said


def test_templates_by_hub_name(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda path, config, split: [{"prompt": "Say [REPLACE]"}])
    (attempt,) = HumanJailbreaks(path="owner/jailbreaks").prompts(CHATS[:1])
    assert attempt.chat.request == "Say Bake a {cake}"
    assert attempt.trace == {"template": "owner/jailbreaks (train), row 1"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.csv", "name,other\none,Say\n", "no column of templates, but: name, other"),
        ("t.py", "print('never run')\n", "no list of texts"),
        ("t.py", "def (:\n", "not Python"),
        ("gone.txt", None, "cannot read"),
    ],
)
def test_bad_files(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        HumanJailbreaks(path=str(tmp_path / name)).prompts(CHATS)
