"""Jailbreak templates: the bundled ones, and files as they are published."""

import json

import pytest

from rerouting.attacks.human_jailbreaks import HumanJailbreaks
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message

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
