import math

import pytest

from rerouting.core.findings import Finding, mean


def test_rates_by_hand():
    found = Finding.of_rates("complied", [(True, True), (True, False), (True, False), (False, False)])
    assert (found.n, found.base, found.rerouted, found.difference) == (4, 0.75, 0.25, -0.5)
    assert found.p == 0.5  # two of two discordant pairs one way: 2 · (1/2)²
    assert found.base_interval[0] < 0.75 < found.base_interval[1]
    assert found.interval[0] < -0.5 < found.interval[1]


def test_means_are_paired():
    found = Finding.of_means("nll", "nats", [(1.0, 1.5), (3.0, 3.5)])
    assert (found.base, found.rerouted, found.difference) == (2.0, 2.5, 0.5)
    assert found.interval == (0.5, 0.5)  # the same rise everywhere, however much texts differ
    half = 1.959963984540054 * math.sqrt(2.0 / 2)
    assert found.base_interval == pytest.approx((2 - half, 2 + half))


def test_nothing_and_one():
    assert Finding.of_rates("complied", [], unscored=3).rerouted is None
    assert Finding.of_means("nll", "nats", []).n == 0
    assert mean([2.0]) == (2.0, None)
    assert Finding.of_values("kl", "nats", [0.1, 0.3]).rerouted == pytest.approx(0.2)
