"""Freed memory is kept during a training, and given back after it."""

import subprocess
import sys

import pytest
import torch

from jettagger.training.kept_memory import _glibc, kept_memory

CODE = """
import resource, torch
from jettagger.training.kept_memory import kept_memory

def pages(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(2_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

start = resident()
with kept_memory(torch.device("cpu")):
    with kept_memory(torch.device("cpu")):
        pages(30)  # the heap grows until all pieces find their place
    inside, held = pages(10), resident() - start
print(inside, pages(10), held, resident() - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(_glibc() is None, reason="the C library is not glibc")
def test_no_page_is_made_twice():
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    inside, outside, held, left = map(int, done.stdout.split())
    assert inside < 1000 < outside
    assert left < held / 2 > 2_000_000  # what lies above a freed piece may hold it back


def test_other_devices_keep_their_own():
    with kept_memory(torch.device("meta")):
        pass
