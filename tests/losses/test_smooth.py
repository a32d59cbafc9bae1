"""The rounded-off retain distance: flat at zero, the relative distance's slope far from it."""

import pytest
import torch

from rerouting.losses.retain.relative import Relative
from rerouting.losses.retain.smooth import Smooth


def moved(share):
    """States, and the same moved by a share of their length."""
    torch.manual_seed(0)
    states = torch.randn(2, 5, 16)
    change = torch.randn(2, 5, 16)
    return states + share * change * states.norm(dim=-1, keepdim=True) / change.norm(
        dim=-1, keepdim=True
    ), states


def test_small_moves_cost_the_square_and_large_ones_the_distance():
    small, large = Smooth(knee=0.1)(*moved(0.001)), Smooth(knee=0.1)(*moved(5.0))
    assert small.shape == (2, 5)
    assert torch.allclose(small, torch.full_like(small, 0.001**2 / (2 * 0.1)), rtol=0.02)
    assert torch.allclose(large, Relative()(*moved(5.0)) - 0.1, rtol=0.001)


def test_the_slope_grows_with_the_move_up_to_the_knee():
    def slope(loss, share):
        adapted, states = moved(share)
        adapted.requires_grad_(True)
        loss(adapted, states).sum().backward()
        return (adapted.grad.norm(dim=-1) * states.norm(dim=-1)).mean().item()

    assert slope(Relative(), 0.001) == pytest.approx(1, rel=0.01)
    assert slope(Smooth(knee=0.02), 0.001) == pytest.approx(0.05, rel=0.01)
    assert slope(Smooth(knee=0.02), 0.02) == pytest.approx(0.5**0.5, rel=0.01)
    assert slope(Smooth(knee=0.02), 1.0) == pytest.approx(1, rel=0.01)


def test_half_precision_is_measured_in_single():
    adapted, reference = moved(0.05)
    found = Smooth()(adapted.bfloat16(), reference.bfloat16())
    assert found.dtype == torch.float32
    assert torch.allclose(found, Smooth()(adapted, reference), rtol=0.1)


def test_a_knee_of_nothing_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        Smooth(knee=0)
