"""Likelihoods of answers and of their ends, against whole forward passes."""

import pytest
import torch

from rerouting.models.scoring import Said, answer_nll, response_nll
from tests.models.tiny import FAMILIES

ENDS = [3, 4]
SAID = [
    Said([5, 6, 7], [8, 9], ended=True),
    Said([9], [11, 12, 13], ended=False),
    Said([20, 21], [], ended=True),
]


@pytest.fixture(scope="module")
def model():
    return FAMILIES["llama"]()


def by_hand(model, ids, start):
    """Nats of the tokens from a place on, and of any end behind them."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float().log_softmax(dim=-1)
    end = -float(logits[-1, ENDS].exp().sum().log())
    return [-float(logits[at - 1, ids[at]]) for at in range(start, len(ids))], end


def test_an_answers_end_may_be_any_token_that_ends_it(model):
    for one, (nll, end) in zip(SAID, answer_nll(model, SAID, ends=ENDS, pad_id=0, batch_size=2), strict=True):
        tokens, wanted = by_hand(model, [*one.prompt, *one.ids], len(one.prompt))
        assert nll == pytest.approx(tokens, abs=1e-4)
        assert end == (pytest.approx(wanted, abs=1e-4) if one.ended else None)


def test_the_end_does_not_change_the_answers_own_tokens(model):
    found = answer_nll(model, SAID[:1], ends=ENDS, pad_id=0)
    (alone,) = response_nll(model, [([*SAID[0].prompt, *SAID[0].ids], 3)], pad_id=0)
    assert found[0][0] == pytest.approx(alone.tolist(), abs=1e-4)


def test_a_model_that_names_no_end_measures_none(model):
    assert [end for _, end in answer_nll(model, SAID, ends=[], pad_id=0)] == [None] * 3
