"""Indexing a million images takes less than 500 MB, and streaming has bounded memory; measured on a tenth of them."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from pathlib import Path
import sklearn.neighbors
from vitreous.data.pixels.cache import open_cached
from vitreous.data.decoding.decode import Header
from vitreous.data.survey.facts import survey
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.sources import FileSource
from vitreous.data.sources.paths import PackedPaths
from vitreous.data.pixels.store import load_store

class Drawn(FileSource):
    def content(self, index):
        return self.paths[index].as_posix().encode()
    def encoded(self, index):
        return np.full((9, 12, 3), index % 251, np.uint8)
    def header(self, index, content):
        return Header(height=9 + index % 50, width=12, is_gray=False)

def made(count):
    paths = PackedPaths(Path("/data/train"))
    for number in range(count):
        paths.append(f"n{number % 2:08d}/n{number % 2:08d}_{number:08d}.JPEG")
    return Drawn(name="drawn", classes=["left", "right"], paths=paths, labels=np.arange(count) % 2,
                 splits=np.full(count, "", dtype="<U5"))

def peak_kib():
    # ru_maxrss would start at the peak of the process that started this one.
    return int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])

survey(made(1000))
before = peak_kib()
found = survey(made(100_000))
indexed = peak_kib()
preprocess = Preprocess((9, 12), 3)
indices = found.indices["train"][:20_000]
store = load_store(found.source, indices, preprocess, memory_limit_bytes=0, cache=None)
for start in range(0, len(store), 500):
    store.take(np.arange(start, min(start + 500, len(store))))
print(indexed - before, peak_kib() - indexed)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in KiB only on Linux")
def test_index_takes_less_than_500_bytes_per_image_and_streaming_hardly_more() -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    indexed_kib, streamed_kib = map(int, done.stdout.split())
    assert indexed_kib * 1024 < 100_000 * 500
    assert streamed_kib < 30_000
