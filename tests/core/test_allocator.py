"""Memory that is freed stays in the process, where the C library can be told so and nobody tunes it."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is told in glibc's words")

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


def test_what_a_step_frees_is_there_for_the_next():
    told, full, left = told_and_heap("keep")
    assert told == "True"
    assert full > 2600 and left == full, "all of it is in the heap, and stays there"
    _, full, left = told_and_heap("leave")
    assert full < 500 and left < 500, "each tensor was a mapping of its own"


def test_who_tunes_malloc_is_not_overruled():
    told, full, _ = told_and_heap("keep", MALLOC_TRIM_THRESHOLD_="65536", MALLOC_MMAP_THRESHOLD_="65536")
    assert told == "False" and full < 500
