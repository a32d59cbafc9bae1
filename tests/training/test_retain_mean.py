"""The retain loss as a mean over sequences: each counts the same, however long."""

import pytest
import torch

from rerouting.core.errors import UserError
from rerouting.core.finder import Component
from rerouting.data.formatting import Example
from rerouting.models.config import LoraConfig
from rerouting.models.lora import adapter_parameters, add_lora
from rerouting.models.packing import register
from rerouting.models.trunk import Trunk
from rerouting.training.config import LossConfig
from rerouting.training.objective import Objective
from tests.models.tiny import FAMILIES


def example(start, length, counts):
    ids = (5, 6, 7, *range(start, start + length))
    return Example(ids, 3, (False,) * (len(ids) - counts) + (True,) * counts, str(start))


L2 = Component("l2")
RETAIN = [example(10, 9, 8), example(30, 4, 1), example(50, 6, 3)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = add_lora(
        FAMILIES["llama"](), LoraConfig(rank=4, alpha=4.0, dropout=0.0, init_b_std=0.05), 1, seed=5
    )
    model.set_attn_implementation(register(torch.device("cpu")))
    return model


def losses(model, examples, mean, packed=False, micro_batch=3, retain=L2, whole=None, skip=False):
    """The loss and the gradients of one step."""
    config = LossConfig(target_layers=(2,), retain=retain, retain_mean=mean, skip_first_token=skip)
    options = {"pad_id": 0, "padded_length": 16, "micro_batch": micro_batch, "packed": packed, "once": packed}
    model.zero_grad()
    measures = Objective(Trunk(model, 2), config, **options).retain(
        examples, 1.0, lambda loss: loss.backward(), whole
    )
    return measures.loss, {name: item.grad.clone() for name, item in adapter_parameters(model).items()}


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed, beginnings once"])
@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_a_mean_over_sequences_is_the_mean_of_each_ones_mean(model, packed, micro_batch):
    alone = [losses(model, [one], "tokens") for one in RETAIN]
    loss, gradients = losses(model, RETAIN, "sequences", packed, micro_batch)
    assert loss == pytest.approx(sum(value for value, _ in alone) / 3, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, sum(own[name] for _, own in alone) / 3, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mean", ["sequences", "tokens"])
def test_shares_of_a_step_add_up_to_the_whole(model, mean):
    loss, gradients = losses(model, RETAIN, mean)
    shares = [losses(model, own, mean, whole=RETAIN) for own in (RETAIN[:2], RETAIN[2:])]
    assert loss == pytest.approx(sum(value for value, _ in shares), rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, sum(own[name] for _, own in shares), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_a_sequence_of_which_nothing_counts_is_none(model, packed):
    nothing = Example((9, 8, 7), 1, (True, False, False), "nothing")
    assert losses(model, [*RETAIN, nothing], "sequences", packed, skip=True)[0] == pytest.approx(
        losses(model, RETAIN, "sequences", packed, skip=True)[0], rel=1e-5
    )


def test_a_run_over_tokens_is_told_by_what_it_was_before_there_was_a_choice():
    """Its checkpoints go on."""
    assert "retain_mean" not in LossConfig().what_counts()
    assert LossConfig(retain_mean="sequences").what_counts()["retain_mean"] == "sequences"


def test_over_tokens_a_long_answer_counts_for_more(model):
    alone = [losses(model, [one], "tokens")[0] for one in RETAIN]
    loss, _ = losses(model, RETAIN, "tokens")
    assert loss == pytest.approx((8 * alone[0] + alone[1] + 3 * alone[2]) / 12, rel=1e-5)
    assert loss != pytest.approx(losses(model, RETAIN, "sequences")[0], rel=1e-3)


def test_a_loss_over_padding_has_no_mean_over_sequences(model):
    with pytest.raises(UserError, match="retain_mean"):
        losses(model, RETAIN, "sequences", retain=Component("l2", {"over": "padded"}))
