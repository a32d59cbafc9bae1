"""Contract of every attack that is found, and what each of them sends."""

import pytest

from rerouting.core.errors import UserError
from rerouting.core.finder import Component, available, build
from rerouting.core.records import Chat, Message

CHATS = [
    Chat("a", (Message("user", "Do a bad thing"),), target="Sure, here is how."),
    Chat("b", (Message("system", "Be brief."), Message("user", "Another")), target="To do it, first you"),
]


def test_these_are_the_attacks():
    expected = (
        "adapter_subtraction autodan best_of_n blank_image crescendo direct embedding embedding_strong finetune gcg "
        "human_jailbreaks image_pgd latent_pgd many_shot multilingual no_end pair prefill refusal_ablation repe "
        "safety_prompt static steering tap text_only typographic"
    )
    assert available("attacks") == tuple(expected.split())


@pytest.mark.parametrize("name", ["direct", "prefill"])
def test_one_attempt_a_chat_in_order_with_its_context(name):
    attempts = build("attacks", Component(name)).prompts(CHATS)
    assert [attempt.chat.id for attempt in attempts] == ["a", "b"]
    assert attempts[1].chat.messages == CHATS[1].messages


def test_prefill_begins_with_the_target_and_a_generic_opening():
    attempts = build("attacks", Component("prefill")).prompts(CHATS)
    assert attempts[0].prefill == "Sure, here is how:\n\n"
    assert attempts[1].prefill == "To do it, first you:\n\n"


def test_prefill_needs_targets():
    with pytest.raises(UserError, match="x has no target"):
        build("attacks", Component("prefill")).prompts([Chat("x", (Message("user", "Hi"),))])


def test_prefill_tries_every_opening():
    options = {"openings": ["{target}. First,", "Step 1:"]}
    attempts = build("attacks", Component("prefill", options)).prompts(CHATS)
    assert [one.prefill for one in attempts[:2]] == ["Sure, here is how. First,", "Step 1:"]
    assert attempts[3].chat.id == "b" and attempts[3].trace == {"opening": "Step 1:", "part": "'Step 1:'"}
    untargeted = build("attacks", Component("prefill", {"openings": ["Sure"]}))
    assert len(untargeted.prompts([Chat("x", (Message("user", "Hi"),))])) == 1
    with pytest.raises(UserError, match="not empty"):
        build("attacks", Component("prefill", {"openings": []})).prompts(CHATS)
