"""Memory that is freed stays in the process, where the C library can be told so and nobody tunes it; kernels do not."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from rerouting.core.allocator import KERNELS, keep_few_kernels

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is told in glibc's words")

STEP = """
import sys, torch
from rerouting.core.allocator import keep_freed_memory

def heap():  # MiB
    with open("/proc/self/maps") as lines:
        ends = [line.split()[0].split("-") for line in lines if line.rstrip().endswith("[heap]")]
    return sum(int(end, 16) - int(start, 16) for start, end in ends) / 2**20

told = keep_freed_memory() if sys.argv[1] == "keep" else None
step = [torch.empty(7_000_000) for _ in range(100)]  # 28 MB each; nothing is written, so it takes no memory
full = heap()
del step
print(told, full, heap())
"""


def told_and_heap(way, **tuned):
    plain = {name: one for name, one in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", STEP, way]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=plain | tuned)
    told, full, left = run.stdout.split()
    return told, float(full), float(left)


@glibc
def test_what_a_step_frees_is_there_for_the_next():
    told, full, left = told_and_heap("keep")
    assert told == "True"
    assert full > 2600 and left == full, "all of it is in the heap, and stays there"
    _, full, left = told_and_heap("leave")
    assert full < 500 and left < 500, "each tensor was a mapping of its own"


@glibc
def test_who_tunes_malloc_is_not_overruled():
    told, full, _ = told_and_heap("keep", MALLOC_TRIM_THRESHOLD_="65536", MALLOC_MMAP_THRESHOLD_="65536")
    assert told == "False" and full < 500


LEFT_BEHIND = """
import os, sys, torch
from rerouting.core.allocator import keep_few_kernels

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

keep_few_kernels()
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
    environment = {"LRU_CACHE_CAPACITY": "7"}
    monkeypatch.setattr(os, "environ", environment)
    keep_few_kernels()
    assert environment == {"LRU_CACHE_CAPACITY": "7", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(KERNELS)}
