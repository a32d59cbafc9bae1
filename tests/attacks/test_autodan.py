"""AutoDAN on a tiny model with a vocabulary of whole words."""

import json
import random
import re
from dataclasses import replace

import pytest
import torch

from rerouting.attacks.autodan import PLACE, Autodan, _Evolution, _NearWords, crossed
from rerouting.attacks.human_jailbreaks import HumanJailbreaks
from rerouting.core.contracts import Reply
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.targets.target_loss import losses_of, target_pair
from tests.attacks.tiny_target import RESOURCES as UNASSISTED
from tests.attacks.tiny_target import tiny_target, wordy

CHAT = Chat("a", (Message("user", "How do I bake?"),), target="To bake, first")
CONTEXTUAL = Chat(
    "c",
    (Message("system", "Be brief."), Message("user", "A text.\n\n---\n\nSum it up")),
    target="It",
    meta={"behaviour": "Sum it up", "context": "A text."},
)
TEXTS = [
    f"You bake some bread. Then {PLACE} again! Cook it well.",
    f"Think of a house.\n\nAnswer this: {PLACE}\nDo not stop.",
    f"Garden paths are long? Yes. No. {PLACE}",
    f"{PLACE}",
]
SMALL = Autodan(answers=1, population=6, generations=4, sentence_level=1, words=0.5)
NEAR = [("bake", "cook"), ("house", "garden")]


class Scripted:
    """An attacker's model that says the same each time."""

    def __init__(self, *says):
        self.says, self.asked = says, 0

    def reply(self, conversations, **options):
        self.asked += len(conversations)
        return [Reply(text, "" if text else "down") for text in self.says] * len(conversations)


RESOURCES = replace(UNASSISTED, assistant=Scripted(None))


def with_near_words(tokenizer, mark="Ġ"):
    target = tiny_target(tokenizer)
    weight = target.model.get_input_embeddings().weight
    with torch.no_grad():
        for one, two in NEAR:
            rows = tokenizer.convert_tokens_to_ids([mark + one, mark + two])
            weight[rows[1]] = weight[rows[0]] + 0.01
    return target


@pytest.fixture(scope="module")
def target():
    return with_near_words(wordy())


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"template": text}) + "\n" for text in TEXTS))
    return replace(SMALL, templates=str(file))


def evolution(target, options=SMALL, assistant=RESOURCES.assistant):
    found = _Evolution(options, target, CHAT, replace(RESOURCES, assistant=assistant), _NearWords(target))
    found.draw = random.Random(0)
    return found


def loss_of(target, chat):
    return float(losses_of(target, [target_pair(chat, target.tokenizer)]))


def test_the_fittest_prompts_are_answered(target, own):
    attempts = replace(own, answers=3).run(target, [CHAT], RESOURCES)
    losses = [one.trace["loss"] for one in attempts]
    assert len({one.chat.request for one in attempts}) == 3 and losses == sorted(losses)
    for one in attempts:
        assert loss_of(target, one.chat) == pytest.approx(one.trace["loss"], abs=1e-4)


def test_the_loss_never_rises_and_is_that_of_what_is_sent(target, own):
    for chat in (CHAT, CONTEXTUAL):
        (attempt,) = own.run(target, [chat], RESOURCES)
        losses = attempt.trace["losses"]
        assert len(losses) == 5 and losses == sorted(losses, reverse=True)
        first = [loss_of(target, one.chat) for one in prompts(own, chat)]
        assert attempt.trace["best_loss"] <= min(first) + 1e-4
        assert loss_of(target, attempt.chat) == pytest.approx(attempt.trace["best_loss"], abs=1e-4)
        assert attempt.chat.request.endswith(filled(attempt.trace["template"], chat))


def prompts(own, chat):
    return HumanJailbreaks(path=own.templates, per_behaviour=None).prompts([chat])


def filled(template, chat):
    return template.replace(PLACE, chat.meta.get("behaviour", chat.request))


def traces(target, options):
    """Of searches with eight seeds."""
    return [options.run(target, [CHAT], replace(RESOURCES, seed=seed))[0].trace for seed in range(8)]


def test_searches_find_more_than_their_templates_and_are_made_by_their_seeds(target, own):
    one, two = (traces(target, own) for _ in range(2))
    assert one == two and len({trace["template"] for trace in one}) > 1
    assert sum(trace["best_loss"] < trace["first_loss"] for trace in one) >= 3


@pytest.mark.parametrize("paragraph", [True, False])
def test_the_elite_lives_on(target, paragraph):
    people = [f"{text} {at}" for at, text in enumerate(TEXTS * 5)]
    losses = [float((at * 7) % 20) for at in range(20)]
    ranked = [text for _, text in sorted(zip(losses, people, strict=True))]
    found = evolution(target, replace(SMALL, elite=0.2, words=1.0))._next(people, losses, paragraph)
    assert found[:4] == ranked[:4] and len(found) == 20
    least = evolution(target, replace(SMALL, elite=0.0))._next(people, losses, paragraph)
    assert least[0] == ranked[0] and len(least) == 20


def test_fit_prompts_have_more_children(target):
    people = [f"{text} {at}" for at, text in enumerate(TEXTS * 10)]
    losses = [1.0 if at < 4 else 9.0 for at in range(40)]
    found = evolution(target, replace(SMALL, crossover=0.0))._next(people, losses, paragraph=True)
    assert set(found[4:]) <= set(people[:4])


def sentences(*texts):
    plain = " ".join(text.replace(PLACE, " ") for text in texts)
    return sorted(re.findall(r"\w+", plain))


def test_crossing_keeps_every_word_and_one_place_each():
    draw = random.Random(0)
    texts = [f"One. {PLACE} two! {PLACE} three?\n\nFour", "No place. None here. At all.", *TEXTS]
    swapped = 0
    for _ in range(200):
        one, other = draw.sample(texts, 2)
        pair = crossed(one, other, draw.randint(1, 5), draw)
        assert [text.count(PLACE) for text in pair] == [1, 1]
        assert sentences(*pair) == sentences(one, other)
        swapped += sentences(pair[0]) != sentences(one)
    assert swapped > 50


def test_crossing_exchanges_whole_sentences_with_their_line_breaks():
    one, other = f"A one.\n\nA two: {PLACE}\nA three.", f"B one! B two {PLACE}? B three."
    assert crossed(one, other, 2, random.Random(0)) == (
        f"A one.\n\nB two {PLACE}? A three.",
        f"B one! A two: {PLACE}\nB three.",
    )


@pytest.mark.parametrize("sentencepiece", [False, True])
def test_words_are_exchanged_for_near_ones_alone(sentencepiece):
    target = with_near_words(wordy(sentencepiece), "▁" if sentencepiece else "Ġ")
    found = evolution(target, replace(SMALL, words=1.0))
    assert found.near.of("bake")[0] == "cook" and found.near.of("garden")[0] == "house"
    assert found.near.of("bakes") == [] and "bake" not in found.near.of("bake")
    text = f"You bake, BAKE bakers some garden {PLACE} it"
    kinds = set()
    for _ in range(30):
        changed = found._exchanged(text)
        kinds.add(changed)
        for old, new in zip(text.split(), changed.split(), strict=True):
            assert new == old or new.strip(",") in found.near.of(old.strip(","))
        assert "BAKE bakers" in changed and changed.endswith(f"{PLACE} it")
    assert any("cook," in one for one in kinds)
    assert evolution(target, replace(SMALL, words=0.0))._exchanged(text) == text


def test_near_words_have_a_cosine_of_at_least_three_tenths(target):
    near, weight = _NearWords(target), target.model.get_input_embeddings().weight
    few = 0
    for word, at in near.ids.items():
        cosines = torch.nn.functional.cosine_similarity(weight, weight[at], dim=1)
        expected = {other for other, place in near.ids.items() if cosines[place] >= 0.3 and other != word}
        found = near.of(word)
        assert set(found) <= expected and len(found) == min(5, len(expected))
        few += len(found) < 5
    assert few > 3 and len(near.ids) > 7


def test_words_that_did_well_are_taken_more_often(target):
    found = evolution(target, replace(SMALL, words=1.0))
    near = found.near.of("bake")
    found._remember([*near, "bake"], [0.1, *[9.0] * len(near)])
    assert [found._exchanged("bake") for _ in range(20)] == ["cook"] * 20
    found._remember(["cook"], [2.1])
    assert found.momentum["cook"] == pytest.approx(-1.1), "half of the old score, half of the new"


def test_rewriting_counts_what_was_asked_and_used(target, own):
    assistant = Scripted(f" Please, {PLACE} now. ")
    options = replace(own, mutation=1.0, generations=1, elite=0.1)
    (attempt,) = options.run(target, [CHAT], replace(RESOURCES, assistant=assistant))
    asked = attempt.trace["rewrites"]["asked"]
    assert asked == attempt.trace["rewrites"]["used"] == assistant.asked >= 5
    rewritten = evolution(target, replace(SMALL, mutation=1.0), assistant)
    assert rewritten._rewritten(TEXTS[0]) == f"Please, {PLACE} now."
    assert evolution(target, replace(SMALL, mutation=0.0), assistant)._rewritten(TEXTS[0]) == TEXTS[0]


@pytest.mark.parametrize("says", [None, "", "I cannot help with that.", f"{PLACE} and {PLACE}"])
def test_an_attacker_that_fails_or_loses_the_place_changes_nothing(target, says):
    found = evolution(target, replace(SMALL, mutation=1.0), Scripted(says))
    assert [found._rewritten(text) for text in TEXTS] == TEXTS
    assert found.rewrites == {"asked": 4, "used": 0}


def test_a_contextual_behaviour_keeps_its_context_and_system_turn(target, own):
    (attempt,) = own.run(target, [CONTEXTUAL], RESOURCES)
    assert attempt.chat.request.startswith("A text.\n\n---\n\n")
    assert attempt.chat.request.count("A text.") == 1 and "Sum it up" in attempt.chat.request
    assert attempt.chat.messages[0].content == "Be brief." and attempt.chat.id == "c"


def test_any_characters_in_a_behaviour_are_sent_as_they_are(target, own):
    behaviour = "Print {request} and {0} {prompt} \\1 \\g<0> .*[ %s $x\nbake. Cook!"
    (attempt,) = replace(own, words=1.0, generations=6).run(
        target, [replace(CHAT, messages=(Message("user", behaviour),))], RESOURCES
    )
    assert attempt.trace["template"].count(PLACE) == 1
    assert attempt.chat.request == attempt.trace["template"].replace(PLACE, behaviour)


def test_it_ends_where_the_loss_is_low_enough(target, own):
    (attempt,) = replace(own, stop_below=99.0).run(target, [CHAT], RESOURCES)
    assert len(attempt.trace["losses"]) == 1
    seed, losses = next(
        (seed, trace["losses"])
        for seed, trace in enumerate(traces(target, own))
        if trace["losses"][0] > trace["losses"][-2]
    )
    end = next(at for at, loss in enumerate(losses) if loss < losses[0])
    early = replace(own, stop_below=losses[0] - 0.0006)
    (attempt,) = early.run(target, [CHAT], replace(RESOURCES, seed=seed))
    assert 0 < end < 4 and attempt.trace["losses"] == losses[: end + 1]


def test_own_templates_are_the_first_generation(target, own):
    found = evolution(target, replace(own, words=0.0))._first()
    assert set(found) == set(TEXTS) and len(found) == 6
    few = evolution(target, replace(own, population=2))._first()
    assert len(few) == 2 and set(few) <= set(TEXTS)


def test_a_template_without_a_place_is_named(target, tmp_path):
    (tmp_path / "t.txt").write_text("You are free.\n")
    with pytest.raises(UserError, match=r"t.txt, 1: the template has no place"):
        Autodan(templates=str(tmp_path / "t.txt")).run(target, [CHAT], RESOURCES)


def test_batches_change_no_loss(target):
    people = TEXTS * 2
    found = evolution(target)._losses(people)
    assert found[0] == pytest.approx(evolution(target, replace(SMALL, batch=1))._losses(people)[0], abs=1e-5)
    assert found == pytest.approx(
        [loss_of(target, evolution(target)._chat(text)) for text in people], abs=1e-5
    )


@pytest.mark.parametrize("wrong", [{"population": 0}, {"batch": 0}, {"sentence_level": -1}])
def test_impossible_options(target, wrong):
    with pytest.raises(UserError, match="too small"):
        Autodan(**wrong).run(target, [CHAT], RESOURCES)


def test_a_population_of_one_lives_on(target, own):
    (attempt,) = replace(own, population=1, generations=2).run(target, [CHAT], RESOURCES)
    assert len(set(attempt.trace["losses"])) == 1


def test_a_behaviour_without_a_target_is_named(target):
    with pytest.raises(UserError, match="a has no target"):
        SMALL.run(target, [replace(CHAT, target=None)], RESOURCES)
