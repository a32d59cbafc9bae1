"""Likelihoods of answers and of their ends, against whole forward passes."""

import pytest
import torch

from rerouting.models.scoring import Said, answer_nll, response_nll
from tests.models.tiny import FAMILIES

CLOSE = [3, 4]
SAID = [
    Said([5, 6, 7], [8, 9], ended=True),
    Said([9], [11, 12, 13], ended=False),
    Said([20, 21], [], ended=True),
]


@pytest.fixture(scope="module")
def model():
    return FAMILIES["llama"]()


def by_hand(model, ids, start):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float().log_softmax(dim=-1)
    return [-float(logits[at - 1, ids[at]]) for at in range(start, len(ids))]


def test_an_answers_end_costs_what_its_closing_tokens_cost(model):
    for one, (nll, end) in zip(SAID, answer_nll(model, SAID, close=CLOSE, pad_id=0, batch_size=2), strict=True):
        whole = [*one.prompt, *one.ids, *(CLOSE if one.ended else [])]
        wanted = by_hand(model, whole, len(one.prompt))
        assert nll == pytest.approx(wanted[: len(one.ids)], abs=1e-4)
        if one.ended:
            assert end == pytest.approx(sum(wanted[len(one.ids) :]), abs=1e-4)
        else:
            assert end is None


def test_the_end_does_not_change_the_answers_own_tokens(model):
    found = answer_nll(model, SAID[:1], close=CLOSE, pad_id=0)
    (alone,) = response_nll(model, [([*SAID[0].prompt, *SAID[0].ids], 3)], pad_id=0)
    assert found[0][0] == pytest.approx(alone.tolist(), abs=1e-4)


def test_a_template_that_ends_no_turn_measures_no_end(model):
    assert [end for _, end in answer_nll(model, SAID, close=[], pad_id=0)] == [None] * 3
