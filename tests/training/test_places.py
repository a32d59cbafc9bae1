"""Places: which tokens they are made of, their means by hand, and what a run does with them."""

from dataclasses import replace

import pytest
import torch

from rerouting.core.errors import UserError
from rerouting.core.finder import Component
from rerouting.data.formatting import Example
from rerouting.data.template import closing_ids
from rerouting.models.config import LoraConfig
from rerouting.models.lora import add_lora
from rerouting.models.trunk import Trunk
from rerouting.training.config import LossConfig
from rerouting.training.loop import TrainingData
from rerouting.training.objective import Objective
from rerouting.training.places import OPENING, marked, measure, wanted
from rerouting.training.states import mean_states
from tests.data import tokenizers_of_families as families
from tests.models.tiny import FAMILIES
from tests.training.test_loop import LOSSES, OPTIM, run

TOKENIZER = families.tiny(families.CHATML)
CLOSING = closing_ids(TOKENIZER)


def example(prompt, response, closed=True):
    ids = TOKENIZER(prompt, add_special_tokens=False)["input_ids"]
    answer = TOKENIZER(response, add_special_tokens=False)["input_ids"]
    whole = (*ids, *answer, *(CLOSING if closed else ()))
    return Example(whole, len(ids), (True,) * len(whole), prompt)


REFUSING = example("ab", "I can't help with that.")
WHOLE, CUT = example("abc", "Yes."), example("abcd", "Yes and", closed=False)
HARMFUL = example("bad", "Step")
HELD_OUT = example("never", "I can't be looked at.")
DATA = TrainingData([HARMFUL, HARMFUL], [WHOLE, CUT, REFUSING, WHOLE], [HELD_OUT], [HELD_OUT])


def spots(name):
    return {
        one.chat_id: [at for at, flag in enumerate(one.mask) if flag] for one in marked(name, DATA, TOKENIZER)
    }


def test_each_place_has_its_tokens():
    assert spots("retain") == {
        "abc": list(range(3, len(WHOLE.ids))),
        "abcd": list(range(4, len(CUT.ids))),
        "ab": list(range(2, len(REFUSING.ids))),
    }
    assert spots("harmful") == {"bad": list(range(3, len(HARMFUL.ids)))}
    assert spots("refusal") == {"ab": list(range(2, 2 + OPENING))}
    # the last letter of a whole answer, after which the end of turn comes
    assert len(CLOSING) == 1
    assert spots("end") == {"abc": [len(WHOLE.ids) - 2], "ab": [len(REFUSING.ids) - 2]}
    assert TOKENIZER.decode(WHOLE.ids[len(WHOLE.ids) - 2]) == "."


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("end", TrainingData([HARMFUL], [CUT]), r"ends with the end of turn.*data\.close"),
        ("refusal", TrainingData([HARMFUL], [WHOLE]), r"declines.*name: refused"),
        ("harmful", TrainingData([example("ab", "", closed=False)], [WHOLE]), "no circuit-breaker example"),
        ("ends", DATA, "did you mean end"),
    ],
)
def test_a_stream_without_such_tokens_says_what_to_do(name, data, said):
    with pytest.raises(UserError, match=said):
        marked(name, data, TOKENIZER)


def tiny_examples():
    """Of unequal length and unequal numbers of marked tokens, in the tiny vocabulary."""
    return [
        Example((5, 6, 7, 8), 2, (False, False, True, True), "a"),
        Example((9, 10, 11, 12, 13, 14, 15), 3, (False, True, False, True, True, True, True), "b"),
        Example((16, 17), 1, (False, True), "c"),
    ]


def test_means_are_those_of_each_sequence_run_alone():
    model = FAMILIES["llama"]()
    means, counts = mean_states(Trunk(model, 3), tiny_examples(), (1, 3), pad_id=0, size=2)
    assert counts.tolist() == [5.0, 2.0, 1.0], "the longest first"
    for row, one in zip(means, sorted(tiny_examples(), key=lambda one: -len(one.ids)), strict=True):
        states = model(torch.tensor([one.ids]), output_hidden_states=True).hidden_states
        chosen = torch.tensor(one.mask)
        torch.testing.assert_close(row[0], states[1][0][chosen].mean(dim=0), atol=1e-5, rtol=1e-4)


def test_a_place_is_the_mean_over_tokens_not_over_examples(monkeypatch):
    model = FAMILIES["llama"]()
    examples = tiny_examples()
    monkeypatch.setattr("rerouting.training.places.marked", lambda *_: examples)
    found = measure(("retain",), Trunk(model, 2), DATA, TOKENIZER, (2,), pad_id=0, size=2)["retain"]
    assert (found.examples, found.tokens, found.state.shape) == (3, 8, (1, 32))
    trunk = Trunk(model, 2)
    total = torch.zeros(32)
    for one in examples:
        ids = torch.tensor([one.ids])
        total += trunk(ids, torch.ones_like(ids), [2])[2][0][torch.tensor(one.mask)].sum(dim=0)
    torch.testing.assert_close(found.state[0], total / 8, atol=1e-5, rtol=1e-4)


def test_losses_say_which_places_they_want():
    assert wanted(LossConfig()) == ()
    assert wanted(LossConfig(reroute=Component("boundary"))) == ("retain",)
    assert wanted(LossConfig(reroute=Component("to_place", {"place": "refusal"}))) == ("refusal",)


def test_an_objective_without_the_place_that_its_loss_needs_is_refused():
    model = add_lora(FAMILIES["llama"](), LoraConfig(rank=4, init_b_std=0.02), 1, seed=0)
    losses = replace(LOSSES, reroute=Component("boundary"))
    with pytest.raises(UserError, match="needs the place retain"):
        Objective(Trunk(model, 2), losses, pad_id=0, padded_length=16, micro_batch=4)


def test_training_towards_a_place_goes_there_and_another_place_is_another_run(tmp_path):
    losses = replace(LOSSES, reroute=Component("to_place", {"within": 0.0}))
    place = {"end": torch.randn(2, 32, generator=torch.Generator().manual_seed(0))}
    optim = replace(OPTIM, steps=30, learning_rate=1e-2, max_benign_rise=99.0)
    rows = run(tmp_path, optim, losses, places=place, rows=True)
    assert rows[-1]["reroute_loss"] < rows[0]["reroute_loss"] - 0.05
    with pytest.raises(UserError, match="another places"):
        run(tmp_path, optim, losses, places={"end": -place["end"]})


@pytest.mark.parametrize("name", ["bend", "orthogonal"])
def test_a_loss_that_compares_sequences_goes_on_only_with_its_micro_batch(tmp_path, name):
    losses = replace(LOSSES, reroute=Component(name))
    run(tmp_path, losses=losses)
    with pytest.raises(UserError, match="another micro batch"):
        run(tmp_path, replace(OPTIM, micro_batch=2), losses)
