"""Cohen's kappa by hand."""

import pytest

from rerouting.core.agreement import agreement


def test_cohens_example_by_hand():
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: share 0.7, chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5, kappa 0.4
    one = [True] * 25 + [False] * 25
    other = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    found = agreement(one, other)
    assert (found.n, found.share, found.kappa) == (50, pytest.approx(0.7), pytest.approx(0.4))


def test_unscored_is_left_out_and_nothing_is_made_up():
    found = agreement([True, None, False], [True, True, None])
    assert (found.n, found.left_out, found.share, found.kappa) == (1, 2, 1.0, None)
    assert agreement([None], [True]).share is None
    assert agreement([True, False], [False, True]).kappa == pytest.approx(-1)
