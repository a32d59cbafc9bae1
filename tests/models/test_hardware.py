import time

import pytest
import torch

from rerouting.models import hardware
from rerouting.models.hardware import measured_rate


def test_the_rate_is_the_median_of_several_products(monkeypatch):
    spent = iter([0.5, 1.0, 4.0, 2.0, 3.0, 9.0, 1.0])  # two to choose the size, then five
    monkeypatch.setattr(hardware, "_seconds_of", lambda left, right, device: next(spent))
    assert measured_rate(torch.device("cpu"), torch.float32) == pytest.approx(2 * 128**3 / 3.0 / 1e12)


def test_a_real_rate_takes_about_the_time_given():
    began = time.perf_counter()
    assert 1e-5 < measured_rate(torch.device("cpu"), torch.float32, seconds=0.1) < 1e3
    assert time.perf_counter() - began < 5
