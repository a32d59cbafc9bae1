import os
import subprocess
import sys
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


LEFT_BEHIND = """
import os, sys, torch
from rerouting.models.hardware import pick_device

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

pick_device("cpu")
torch.set_num_threads(1)
weight = torch.randn(64, 64).bfloat16()
sizes = []
for rows in range(1, 401):
    torch.randn(rows, 64).bfloat16() @ weight
    sizes.append(resident())
print(sizes[-1] - sizes[99])
"""


def test_products_of_ever_new_shapes_leave_little_behind():
    if sys.platform != "linux" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor's bfloat16 products keep nothing")
    clean = {name: value for name, value in os.environ.items() if not name.endswith("CACHE_CAPACITY")}
    done = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND], capture_output=True, text=True, env=clean, check=True
    )
    assert float(done.stdout) < 60  # MiB for 300 shapes; without the bound about 190


def test_what_the_user_says_about_kernels_stands(monkeypatch):
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    hardware.bound_kernels()
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == str(hardware.PRODUCTS_KEPT)
