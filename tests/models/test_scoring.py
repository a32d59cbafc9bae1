"""Likelihoods of answers and of their ends, against whole forward passes."""

from functools import partial

import pytest
import torch

from rerouting.models import packed_scoring, scoring
from rerouting.models.packed_scoring import packs
from rerouting.models.packing import register
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


REQUEST = [1, 20, 21, 22, 23, 24, 25]
SEQUENCES = [
    ([*REQUEST, 30, 31, 32, 33, 3], 7),
    ([*REQUEST, 40, 41], 7),
    ([*REQUEST, 30, 31], 7),
    ([*REQUEST], 7),
    ([1, 20, 50, 51, 52, 4], 3),
    ([60, 61, 62], 1),
]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_scores_the_same_however_its_sequences_lie(family, monkeypatch):
    model = FAMILIES[family]()
    wanted = response_nll(model, SEQUENCES, pad_id=0, ends=ENDS)  # eager attention: padded
    model.set_attn_implementation(register(torch.device("cpu")))
    calls = []
    packed = packed_scoring.packed_nll
    monkeypatch.setattr(
        scoring, "packed_nll", lambda *given, ends: calls.append(given) or packed(*given, ends)
    )
    packed_scoring._packs.clear()
    for found, scores in zip(
        response_nll(model, SEQUENCES, pad_id=0, ends=ENDS, batch_size=2), wanted, strict=True
    ):
        assert torch.allclose(found, scores, atol=2e-4)
    assert len(calls) == 2, "two passes of at most four sequences"


def test_what_all_begin_with_runs_once(monkeypatch):
    model, seen = FAMILIES["llama"](), []
    model.set_attn_implementation(register(torch.device("cpu")))
    model.model.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["input_ids"].shape), with_kwargs=True
    )
    packed_scoring.packed_nll(model, SEQUENCES)
    different = {tuple(ids[:end]) for ids, _ in SEQUENCES for end in range(1, len(ids) + 1)}
    assert seen == [(1, len(different))]


def remembering(model):
    """A first block that sees all that came before it in the row, as a recurrent state does."""
    plain = model.model.layers[0].forward
    model.model.layers[0].forward = lambda states, *args, **kwargs: plain(
        states + 0.1 * states.cumsum(dim=1), *args, **kwargs
    )
    return model


def short_memory(model):
    """One that sees the token before, as a short convolution does: wrong at the first token of a sequence alone."""
    plain = model.model.layers[0].forward
    model.model.layers[0].forward = lambda states, *args, **kwargs: plain(
        states + torch.nn.functional.pad(states, (0, 0, 1, 0))[:, :-1], *args, **kwargs
    )
    return model


@pytest.mark.parametrize("leaking", [remembering, short_memory])
def test_a_model_that_sees_across_borders_is_scored_padded(leaking):
    model = leaking(FAMILIES["llama"]())
    wanted = [by_hand(model, ids, start)[0] for ids, start in SEQUENCES]
    model.set_attn_implementation(register(torch.device("cpu")))
    found = response_nll(model, SEQUENCES, pad_id=0)
    assert packed_scoring._packs[model] is False
    for scores, tokens in zip(found, wanted, strict=True):
        assert scores.tolist() == pytest.approx(tokens, abs=1e-4)


def test_nothing_is_found_out_on_a_few_tokens_or_for_want_of_memory(monkeypatch):
    model = FAMILIES["llama"]()
    model.set_attn_implementation(register(torch.device("cpu")))
    padded = partial(scoring._padded_nll, pad_id=0)
    assert not packs(model, SEQUENCES[-1:], padded) and model not in packed_scoring._packs

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        packs(model, SEQUENCES, padded)
    assert model not in packed_scoring._packs
