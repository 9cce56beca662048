"""glibc keeps freed memory; measured in separate processes, because the setting lasts as long as a process."""

import os
import subprocess
import sys

import pytest

from vitreous.heap import keep_freed_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the setting is one of glibc")

PROGRAM = """
import ctypes, resource, sys, threading
from vitreous.heap import keep_freed_memory

libc = ctypes.CDLL(None)

def use(size):
    # Allocate as torch does, write to every page, and free.
    memory = ctypes.c_void_p()
    assert libc.posix_memalign(ctypes.byref(memory), ctypes.c_size_t(64), ctypes.c_size_t(size)) == 0
    ctypes.memset(memory, 1, size)
    libc.free(memory)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

is_set = keep_freed_memory() if sys.argv[1] == "kept" else None
for _ in range(20):
    use(20_000_000)
before = faults()
for _ in range(10):
    use(20_000_000)
found = faults() - before
thread = threading.Thread(target=use, args=(240_000_000,))
thread.start()
thread.join()
print(is_set, found)
"""


def page_faults(how: str, **environment: str) -> tuple[str, int]:
    """Return the result of `keep_freed_memory`, and the page faults of ten allocations of 20 MB (4,883 pages each)."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], env=inherited | environment, capture_output=True, text=True, check=True
    )
    is_set, faults = done.stdout.split()
    return is_set, int(faults)


def test_freed_memory_is_used_again() -> None:
    is_set, faults = page_faults("kept")
    assert is_set == "True"
    assert faults < 1000
    assert page_faults("default", MALLOC_MMAP_THRESHOLD_="131072")[1] > 10_000


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_allocator_that_the_user_configured_is_not_changed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "glibc.malloc.trim_threshold=131072" if name == "GLIBC_TUNABLES" else "131072")
    assert not keep_freed_memory()
