"""Memory that is freed stays in the process, where the C library can be told so."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys, torch
from rerouting.models.memory import keep_freed_memory

def step():
    return [torch.ones(2_000_000) for _ in range(20)]  # 8 MB each, all freed together

if sys.argv[1] == "keep":
    assert keep_freed_memory()
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is asked in glibc's words")
def test_a_step_finds_the_memory_of_the_last_one():
    """Without it each of the five steps would be given its 160 MB page by page: about 39,000 pages of 4 KiB."""
    found = {}
    for way in ("keep", "leave"):
        run = subprocess.run([sys.executable, "-c", STEPS, way], capture_output=True, text=True, check=True)
        found[way] = int(run.stdout)
    assert found["keep"] < 1000
    assert found["leave"] > 10 * found["keep"]
