"""Freed memory is kept, in a process of its own: the setting lasts as long as the process."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")

PROGRAM = """
import resource, sys, threading
import torch
from vitreous.heap import keep_freed_memory

def use():
    torch.ones(5_000_000)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

asked = keep_freed_memory() if sys.argv[1] == "kept" else None
for _ in range(20):  # until the allocator has found its places
    use()
before = faults()
for _ in range(10):
    use()
alone = faults() - before
thread = threading.Thread(target=lambda: torch.ones(60_000_000).sum())
thread.start()
thread.join()
print(asked, alone)
"""


def run(how: str, **environment: str) -> tuple[str, int]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], env=inherited | environment, capture_output=True, text=True, check=True
    )
    asked, faults = done.stdout.split()
    return asked, int(faults)


def test_memory_that_was_freed_is_used_again() -> None:
    """Twenty megabytes, made ten times: 4,883 pages each time, or none."""
    asked, faults = run("kept")
    assert asked == "True"
    assert faults < 1000
    assert run("as it is", MALLOC_MMAP_THRESHOLD_="131072")[1] > 10_000


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_who_has_set_the_allocator_is_left_alone(name: str) -> None:
    value = "glibc.malloc.trim_threshold=131072" if name == "GLIBC_TUNABLES" else "131072"
    assert run("kept", **{name: value})[0] == "False"
