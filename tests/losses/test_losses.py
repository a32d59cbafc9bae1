"""Losses and schedules against arithmetic done by hand."""

import math

import pytest
import torch

from rerouting.core.errors import UserError
from rerouting.core.finder import Component, available, build
from rerouting.losses.geometry import angle, cosine

G = torch.Generator()
REFERENCE = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]]])  # (1, 3, 2)
ADAPTED = torch.tensor([[[4.0, 3.0], [-1.0, 0.0], [2.0, 0.0]]])


def loss(kind: str, name: str, **options: object):
    return build(f"losses.{kind}", Component(name, options))


def test_cosine_is_clipped_at_zero():
    values = loss("reroute", "cosine")(ADAPTED, REFERENCE, G)
    torch.testing.assert_close(values, torch.tensor([[24 / 25, 0.0, 0.0]]))


def test_angle_is_a_share_of_a_right_angle():
    values = loss("reroute", "angle")(ADAPTED, REFERENCE, G)
    expected = 1 - math.acos(24 / 25) / (math.pi / 2)
    torch.testing.assert_close(values, torch.tensor([[expected, 0.0, 0.0]]), atol=1e-6, rtol=0)


def test_angle_has_a_finite_gradient_where_training_starts():
    start = REFERENCE.clone().requires_grad_()
    loss("reroute", "angle")(start, REFERENCE, G).sum().backward()
    assert start.grad.isfinite().all()
    near = (REFERENCE + torch.tensor([1e-4, -1e-4])).requires_grad_()
    loss("reroute", "angle")(near, REFERENCE, G).sum().backward()
    # 1 − θ/(π/2) has slope 1/(‖x‖·π/2) across the ray at any angle
    lengths = near.detach().norm(dim=-1)
    torch.testing.assert_close(near.grad.norm(dim=-1), 1 / (lengths * math.pi / 2), rtol=2e-2, atol=0)


def test_l2_and_relative():
    torch.testing.assert_close(
        loss("retain", "l2")(ADAPTED, REFERENCE), torch.tensor([[math.sqrt(2), 2.0, math.sqrt(8)]])
    )
    torch.testing.assert_close(
        loss("retain", "relative")(ADAPTED, REFERENCE),
        torch.tensor([[math.sqrt(2) / 5, 2.0, math.sqrt(8) / 2]]),
    )


def test_l2_in_bfloat16_is_computed_in_float32():
    values = loss("retain", "l2")(ADAPTED.bfloat16(), REFERENCE.bfloat16())
    assert values.dtype is torch.float32


def test_rmu_measures_from_one_fixed_vector_of_the_given_length():
    rmu = loss("reroute", "rmu", scale=6.0, seed=3)
    at_zero = rmu(torch.zeros(2, 5, 4), torch.ones(2, 5, 4), G)
    torch.testing.assert_close(at_zero, torch.full((2, 5), 6.0))
    first, second = (rmu(torch.ones(2, 5, 4), torch.ones(2, 5, 4), G) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.allclose(first[0], first[1]), "layers have vectors of their own"


@pytest.mark.parametrize("name", ["random_positive", "random_centred"])
def test_random_directions_are_fresh_and_repeatable(name):
    one = loss("reroute", name)
    states = torch.randn(2, 3, 8)
    values = [one(states, states, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    assert (values[0] <= 2).all(), "two unit vectors are at most 2 apart"


def test_random_positive_is_positive_and_centred_is_not():
    axis = torch.eye(8)[None]  # (1, 8, 8): every coordinate's unit vector
    towards = loss("reroute", "random_positive")(axis, axis, torch.Generator().manual_seed(0))
    assert (towards <= math.sqrt(2)).all(), "no coordinate of u is negative"
    centred = loss("reroute", "random_centred")(axis, axis, torch.Generator().manual_seed(0))
    assert (centred > math.sqrt(2)).any()


def test_linear_schedule_is_the_papers():
    schedule = build("losses.schedules", Component("linear", {"alpha": 10.0}))
    assert schedule(1 / 150) == pytest.approx((10 * (1 - 1 / 300), 10 / 300))
    assert schedule(1.0) == (5.0, 5.0)


def test_constant_schedule():
    assert build("losses.schedules", Component("constant", {"reroute": 2.0, "retain": 3.0}))(0.4) == (
        2.0,
        3.0,
    )


def test_ramp_schedule():
    ramp = build(
        "losses.schedules", Component("ramp", {"reroute": 2.0, "retain_from": 10.0, "retain_to": 30.0})
    )
    assert ramp(0.25) == (2.0, 15.0)
    assert ramp(1.0) == (2.0, 30.0)


def test_angle_is_clipped_at_the_angle_asked_for():
    values = loss("reroute", "angle", degrees=30.0)(ADAPTED, REFERENCE, G)
    torch.testing.assert_close(
        values[0, 0].item(), 1 - math.degrees(math.acos(24 / 25)) / 30, atol=1e-4, rtol=0
    )
    assert loss("reroute", "angle", degrees=10.0)(ADAPTED, REFERENCE, G)[0, 0] == 0


def test_cosine_and_angle_of_zero_vectors_are_finite():
    zero = torch.zeros(1, 1, 4)
    assert cosine(zero, zero).item() == 0
    assert angle(zero, torch.ones(1, 1, 4)).isfinite().all()


def test_every_loss_has_the_same_shape_and_the_files_are_these():
    assert available("losses.reroute") == (
        "angle", "bend", "boundary", "cosine", "orthogonal", "random_centred", "random_positive", "rmu", "to_place",
    )  # fmt: skip
    assert available("losses.retain") == ("l2", "relative", "smooth")
    assert available("losses.schedules") == ("constant", "holding", "linear", "ramp")
    adapted, reference = torch.randn(3, 7, 5), torch.randn(3, 7, 5)
    everywhere = dict.fromkeys(("end", "harmful", "refusal", "retain"), torch.randn(3, 1, 5))
    for name in available("losses.reroute"):
        one = loss("reroute", name)
        wanted = getattr(one, "places", ())
        more = {"places": {place: everywhere[place] for place in wanted}} if wanted else {}
        if getattr(one, "by_sequence", False):
            more["sequences"] = torch.tensor([0, 0, 0, 1, 1, 2, 2])
        for start in (adapted, reference):
            for dtype in (torch.float32, torch.bfloat16):
                new = start.to(dtype).clone().requires_grad_()
                values = one(new, reference.to(dtype), torch.Generator(), **more)
                assert values.shape == (3, 7) and values.dtype is torch.float32, name
                values.sum().backward()
                assert values.isfinite().all() and new.grad.isfinite().all(), (
                    f"{name} at its stationary start too"
                )
    for name in available("losses.retain"):
        assert loss("retain", name)(adapted, reference).shape == (3, 7)
        assert loss("retain", name).over == "real"


AXES = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]]])  # (1, 3, 2)


def test_boundary_adds_the_cosine_to_the_retained_mean():
    # cos(adapted, reference) = 24/25, −1 → 0, 0; cos to (0, 5): 3/5, 0, 0
    place = {"retain": torch.tensor([[[0.0, 5.0]]])}
    values = loss("reroute", "boundary", separate=0.5)(ADAPTED, REFERENCE, G, places=place)
    torch.testing.assert_close(values, torch.tensor([[24 / 25 + 0.3, 0.0, 0.0]]))


def test_bend_is_a_share_of_the_distance_asked_for_and_of_how_unlike_the_sequences_are():
    # distances √2/5, 2/1 and √8/2 of the reference's length; sequences of 1 and 2 tokens
    sequences = torch.tensor([4, 7, 7])
    values = loss("reroute", "bend", far=2.0, alike=0.5)(ADAPTED, REFERENCE, G, sequences=sequences)
    # means (4, 3) and (½, 0): cosine 4/5, so every token has ½ · (1 − 4/5) besides
    near = [1 - math.sqrt(2) / 5 / 2, 0.0, 1 - math.sqrt(2) / 2]
    torch.testing.assert_close(values, torch.tensor([near]) + 0.1)


def test_bend_pushes_away_once_a_state_has_left_its_place_and_draws_sequences_together_before():
    start = AXES.clone().requires_grad_()
    bend = loss("reroute", "bend", far=1.0, alike=1.0)
    bend(start, AXES, G, sequences=torch.tensor([0, 1, 1])).sum().backward()
    assert start.grad.norm() > 0, "the second term moves the stationary start"
    moved = (AXES + torch.tensor([0.1, 0.0])).requires_grad_()
    bend(moved, AXES, G, sequences=torch.tensor([0, 0, 0])).sum().backward()
    # 1 − d/‖reference‖ falls with slope 1/‖reference‖ along the way out
    torch.testing.assert_close(moved.grad[0, :, 0], torch.tensor([-1 / 2, -1 / 3, -1 / math.sqrt(2)]))


def test_orthogonal_compares_each_sequence_with_the_others_of_its_micro_batch():
    # sequence means (2, 0), (½, 2): cosine ½ / √(¼ + 4)
    values = loss("reroute", "orthogonal", apart=2.0)(AXES, -AXES, G, sequences=torch.tensor([0, 1, 1]))
    torch.testing.assert_close(values, torch.full((1, 3), 2 * 0.5 / math.sqrt(4.25)))
    three = loss("reroute", "orthogonal")(AXES, -AXES, G, sequences=torch.tensor([0, 1, 2]))
    half = math.sqrt(0.5)  # cosines 0 (first and second), √½ (each with the third): mean over two others
    torch.testing.assert_close(three, torch.tensor([[half / 2, half / 2, half]]))
    alone = loss("reroute", "orthogonal")(AXES, AXES, G, sequences=torch.tensor([5, 5, 5]))
    torch.testing.assert_close(alone, torch.ones(1, 3))


def test_sequences_that_point_away_from_each_other_are_not_pulled_back():
    opposite = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    assert not loss("reroute", "orthogonal")(opposite, -opposite, G, sequences=torch.tensor([0, 1])).any()


def test_to_place_is_the_angle_left_as_a_share_of_a_right_angle():
    place = {"end": torch.tensor([[[0.0, 5.0]]])}
    values = loss("reroute", "to_place", within=15.0)(AXES, AXES, G, places=place)
    torch.testing.assert_close(values, torch.tensor([[75 / 90, 0.0, 30 / 90]]))
    both = loss("reroute", "to_place", within=15.0, away=2.0, degrees=50.0)(AXES, AXES, G, places=place)
    torch.testing.assert_close(both, values + 2)
    start = AXES.clone().requires_grad_()
    loss("reroute", "to_place", within=15.0)(start, AXES, G, places=place).sum().backward()
    lengths = torch.tensor([2.0, 3.0, math.sqrt(2)])
    expected = torch.tensor([1.0, 0.0, 1.0]) / (lengths * math.pi / 2)
    torch.testing.assert_close(start.grad.norm(dim=-1)[0], expected)


def test_to_place_keeps_lengths_if_it_is_told_to():
    place = {"end": torch.tensor([[[0.0, 1.0, 0.0]]])}
    reference = torch.tensor([[[3.0, 0.0, 0.0]] * 4]).view(1, 4, 3)
    adapted = torch.tensor([[[0.0, 3.0, 0.0], [0.0, 6.0, 0.0], [0.0, 1.5, 0.0], [0.0, 3.2, 0.0]]])
    free = loss("reroute", "to_place")(adapted, reference, G, places=place)
    assert free.tolist() == [[0.0] * 4]
    kept = loss("reroute", "to_place", length=2.0, tolerance=0.1)(adapted, reference, G, places=place)
    assert kept[0].tolist() == pytest.approx([0.0, *[2 * (math.log(2) - 0.1)] * 2, 0.0], abs=1e-5)


def test_to_place_asks_for_the_place_that_it_is_told():
    assert loss("reroute", "to_place").places == ("end",)
    assert loss("reroute", "to_place", place="refusal").places == ("refusal",)
    for wrong in ({"place": "nowhere"}, {"within": 180.0}, {"degrees": 0.0}):
        with pytest.raises(UserError, match="to_place"):
            loss("reroute", "to_place", **wrong)


def test_holding_raises_the_coefficient_when_benign_states_drift_and_lowers_it_when_they_do_not():
    holding = build("losses.schedules", Component("holding", {"level": 0.02, "retain": 8.0, "gain": 0.1}))
    assert holding(0.1) == holding(1.0) == (1.0, 8.0)
    holding.observe(0.02)
    assert holding(0.5)[1] == 8.0
    holding.observe(0.03)  # 8 · 1.5^0.1
    assert holding(0.5)[1] == pytest.approx(8 * 1.5**0.1)
    holding.observe(10.0)  # no more than e^0.1 in a step
    assert holding(0.5)[1] == pytest.approx(8 * 1.5**0.1 * math.exp(0.1))
    other = build("losses.schedules", Component("holding", {"level": 0.02, "retain": 8.0}))
    other.restore(holding.state())
    assert other(0.5) == holding(0.5)
    for _ in range(60):
        holding.observe(0.0)
    assert holding(0.5) == (1.0, 1.0), "never below `least`, so that it comes back soon"


def test_holding_finds_the_coefficient_that_holds_the_level():
    holding = build("losses.schedules", Component("holding", {"level": 0.02, "retain": 2.0, "gain": 0.2}))
    for _ in range(200):  # a model whose distance is inverse to the coefficient
        holding.observe(0.5 / holding(0.5)[1])
    assert holding(0.5)[1] == pytest.approx(25.0, rel=1e-3)


@pytest.mark.parametrize("wrong", [{"level": 0.0}, {"gain": 1.5}, {"retain": 0.5}, {"most": 5.0}])
def test_holding_refuses_what_it_cannot_hold(wrong):
    with pytest.raises(UserError, match="holding"):
        build("losses.schedules", Component("holding", wrong))
