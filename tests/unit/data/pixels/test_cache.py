"""Pixels of an earlier run are reused, and are right whatever happens to the file or the disk."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels import cache
from vitreous.data.pixels.cache import CacheUse, open_cached
from vitreous.data.pixels.pixel_file import PixelFile
from vitreous.data.pixels.store import LazyStore, MappedStore, MemoryStore, Store, load_store
from vitreous.data.sources import open_source
from vitreous.data.survey.facts import Survey, survey

MakeFolder = Callable[[Mapping[str, int]], Path]
SMALL = Preprocess((5, 7), 3)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept images"


@pytest.fixture
def found(make_folder: MakeFolder) -> Survey:
    return surveyed(make_folder({"cat": 5, "dog": 4}))


def surveyed(root: Path) -> Survey:
    return survey(open_source(root), test_ratio=0.0, val_ratio=0.0)


def opened(
    found: Survey, kept: Path, preprocess: Preprocess = SMALL, **options: int
) -> tuple[PixelFile | None, CacheUse]:
    indices = found.indices["train"]
    return open_cached(found.source, indices, preprocess, found.digests[indices], folder=str(kept), **options)


def loaded(found: Survey, kept: Path | None, **options: int) -> Store:
    indices = found.indices["train"]
    folder = None if kept is None else str(kept)
    return load_store(found.source, indices, SMALL, digests=found.digests[indices], cache=folder, **options)


def expected(found: Survey) -> torch.Tensor:
    return torch.stack([SMALL.pixels(found.source.encoded(int(index))) for index in found.indices["train"]])


def all_of(store: Store) -> torch.Tensor:
    return store.take(np.arange(len(store)))


def files(kept: Path) -> list[Path]:
    return sorted(kept.glob("*.pixels"))


# Decoded once.


@pytest.mark.parametrize(("limit", "kind"), [(9 * 105, MemoryStore), (9 * 105 - 1, MappedStore)])
def test_second_store_needs_no_images(found: Survey, kept: Path, limit: int, kind: type) -> None:
    wanted = expected(found)
    first = loaded(found, kept, memory_limit_bytes=limit)
    for index in found.indices["train"]:
        Path(found.source.describe(int(index))).unlink()
    second = loaded(found, kept, memory_limit_bytes=limit)
    for store, is_new in ((first, True), (second, False)):
        assert isinstance(store, kind)
        torch.testing.assert_close(all_of(store), wanted)
        torch.testing.assert_close(store.labels, torch.tensor([0] * 5 + [1] * 4))
        torch.testing.assert_close(store.take(np.array([8, 0, 3])), wanted[[8, 0, 3]])
        assert store.cache_use == CacheUse(str(kept), files(kept)[0].stat().st_size, is_new=is_new)
    assert len(files(kept)) == 1


def test_stores_with_and_without_the_cache_are_equal(found: Survey, kept: Path) -> None:
    with_cache, without = loaded(found, kept), loaded(found, None)
    torch.testing.assert_close(all_of(with_cache), all_of(without))
    assert without.cache_use is None
    assert isinstance(loaded(found, None, memory_limit_bytes=0), LazyStore)


def test_mapped_store_gives_pixels_on_a_device(found: Survey, kept: Path) -> None:
    moved = loaded(found, kept, memory_limit_bytes=0).to("meta")
    assert isinstance(moved, MappedStore)
    assert (moved.labels.device.type, moved.take(np.array([1])).device.type) == ("meta", "meta")


def test_images_that_do_not_decode_are_cached_with_their_reason(make_folder: MakeFolder, kept: Path) -> None:
    root = make_folder({"cat": 5, "dog": 4})
    cut = root / "cat" / "3.png"
    cut.write_bytes(cut.read_bytes()[:200])
    found = surveyed(root)
    for limit in (1 << 20, 0):
        for _ in range(2):
            store = loaded(found, kept, memory_limit_bytes=limit)
            assert store.skipped == ((str(cut), "image file is truncated"),)
            assert list(store.source_indices) == [0, 1, 2, 4, 5, 6, 7, 8]
            torch.testing.assert_close(store.take(np.array([3]))[0], SMALL.pixels(root / "cat" / "4.png"))


def test_other_content_order_or_preprocessing_gives_another_file(make_folder: MakeFolder, kept: Path) -> None:
    root = make_folder({"cat": 3, "dog": 2})
    found = surveyed(root)
    opened(found, kept)
    for number, other in enumerate([Preprocess((7, 5), 3), Preprocess((5, 7), 1), Preprocess((5, 7), 3, "pad")]):
        opened(found, kept, other)
        assert len(files(kept)) == number + 2
    opened(found, kept, Preprocess((5, 7), 3, mean=(0.5,) * 3, std=(0.5,) * 3))
    assert len(files(kept)) == 4
    one, two = root / "cat" / "0.png", root / "cat" / "1.png"
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    swapped = surveyed(root)
    torch.testing.assert_close(all_of(loaded(swapped, kept)), expected(swapped))
    assert len(files(kept)) == 5


def test_folder_is_the_users_unless_the_environment_sets_one(
    found: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITREOUS_CACHE", str(tmp_path / "named"))
    assert open_cached(found.source, np.array([1]), SMALL, found.digests[[1]])[1].folder == str(tmp_path / "named")
    monkeypatch.delenv("VITREOUS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    use = open_cached(found.source, np.array([1]), SMALL, found.digests[[1]])[1]
    assert use.folder == str(tmp_path / "xdg" / "vitreous" / "pixels")


# Damage and change.


def test_damaged_pixels_are_decoded_again_and_the_file_is_deleted(found: Survey, kept: Path) -> None:
    for limit in (1 << 20, 0):
        opened(found, kept)
        (path,) = files(kept)
        content = bytearray(path.read_bytes())
        content[4 * 105 + 50] ^= 128
        path.write_bytes(content)
        torch.testing.assert_close(all_of(loaded(found, kept, memory_limit_bytes=limit)), expected(found))
        assert files(kept) == []


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: b"", lambda c: c[:-40] + b"x" + c[-39:]])
def test_damaged_file_is_written_again(found: Survey, kept: Path, damage: Callable[[bytes], bytes]) -> None:
    opened(found, kept)
    (path,) = files(kept)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    file, use = opened(found, kept)
    assert file is not None
    assert use.is_new
    assert path.read_bytes() == whole


def test_image_that_changed_after_the_survey_is_reported_and_not_cached(found: Survey, kept: Path) -> None:
    path = Path(found.source.describe(3))
    path.write_bytes(Path(found.source.describe(4)).read_bytes())
    reason = f"{path}: has changed since it was first read; run again once it no longer changes"
    assert opened(found, kept) == (None, CacheUse(str(kept), reason=reason))
    assert list(kept.glob("*.tmp")) + list(kept.glob(".*.tmp")) + files(kept) == []
    torch.testing.assert_close(all_of(loaded(found, kept)), expected(found))


def test_missing_image_is_not_cached_as_damaged(found: Survey, kept: Path) -> None:
    path = Path(found.source.describe(3))
    content = path.read_bytes()
    path.unlink()
    store = loaded(found, kept)
    assert store.skipped == ((str(path), "No such file or directory"),)
    assert store.cache_use == CacheUse(
        str(kept), reason=f"{path}: No such file or directory; run again when it can be read"
    )
    path.write_bytes(content)
    assert loaded(found, kept).skipped == ()


# Disk space.


def test_set_over_the_limit_is_not_cached(found: Survey, kept: Path) -> None:
    file, use = opened(found, kept, limit_bytes=3000)
    assert file is None
    assert use.reason == "5,077 bytes of decoded images are over the cache's limit of 3,000 bytes"


def test_least_recently_used_file_makes_room_but_none_in_use(found: Survey, kept: Path) -> None:
    sizes = [(5, 7), (6, 7), (7, 7)]
    for age, size in zip((300, 200, 100), sizes, strict=True):
        in_use, _ = opened(found, kept, Preprocess(size, 3), limit_bytes=30_000)
        assert in_use is not None
        os.utime(in_use.path, (time.time() - age,) * 2)
    before = files(kept)
    held, _ = opened(found, kept, Preprocess(sizes[0], 3), limit_bytes=30_000)  # just used, so the second is the oldest
    assert held is not None
    limit = sum(path.stat().st_size for path in before) + 4000
    opened(found, kept, Preprocess((8, 7), 3), limit_bytes=limit)
    gone = set(before) - set(files(kept))
    assert len(gone) == 1
    assert held.path not in gone
    del in_use
    everything = [opened(found, kept, Preprocess(size, 3))[0] for size in (sizes[0], sizes[2])]
    file, use = opened(found, kept, Preprocess((9, 7), 3), limit_bytes=8_000)
    assert file is None
    assert "are in use by other runs, and 5,833 more are over the limit of 8,000 bytes" in use.reason
    assert all(one is not None and one.path.exists() for one in everything)


def test_cache_leaves_half_of_the_free_disk_space(found: Survey, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 9_000}))
    assert opened(found, kept)[1].reason == "5,077 bytes of decoded images are over the cache's limit of 4,500 bytes"


def test_folder_that_cannot_be_made_is_reported_and_the_store_still_loads(found: Survey, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = loaded(found, tmp_path / "file" / "below")
    assert store.cache_use == CacheUse(str(tmp_path / "file" / "below"), reason="Not a directory")
    torch.testing.assert_close(all_of(store), expected(found))


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 300, 9 * 105 + 10])
def test_full_disk_leaves_no_partial_file_and_the_right_pixels(found: Survey, kept: Path, room: int) -> None:
    with largest_file(room):
        store = loaded(found, kept)
    assert store.cache_use == CacheUse(str(kept), reason="File too large")
    assert [path for path in kept.iterdir() if path.stat().st_size] == []
    torch.testing.assert_close(all_of(store), expected(found))
    assert loaded(found, kept).cache_use == CacheUse(str(kept), files(kept)[0].stat().st_size, is_new=True)


# Several processes.

SLOW = """
import sys, time
from pathlib import Path
import numpy as np
from vitreous.data.pixels import cache
from vitreous.data.pixels.digest import digest_of
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.sources import open_source

root, kept, log, pause_s = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])

class Slow(Preprocess):
    def pixels(self, image, where=""):
        with log.open("a") as lines:
            lines.write(where + "\\n")
        time.sleep(pause_s)
        return super().pixels(image, where)

source = open_source(root)
indices = np.arange(len(source))
digests = np.stack([np.frombuffer(digest_of(source.content(i)), dtype=np.uint8) for i in indices])
file, use = cache.open_cached(source, indices, Slow((5, 7), 3), digests, folder=kept)
print(use.is_new, file.take(indices)[0].sum())
"""


def start(root: Path, kept: Path, log: Path, pause_s: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SLOW, str(root), str(kept), str(log), str(pause_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for_lines(log: Path, count: int, process: "subprocess.Popen[str]") -> None:
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert process.poll() is None
        time.sleep(0.02)


def test_two_runs_at_the_same_time_decode_once(make_folder: MakeFolder, kept: Path, tmp_path: Path) -> None:
    root, log = make_folder({"cat": 9, "dog": 9}), tmp_path / "log"
    found = surveyed(root)
    other = start(root, kept, log, pause_s=0.1)
    wait_for_lines(log, 2, other)
    file, use = opened(found, kept)
    pixels = expected(found)
    assert other.communicate()[0].split() == ["True", str(int(pixels.sum(dtype=torch.int64)))]
    assert file is not None
    assert not use.is_new
    np.testing.assert_array_equal(file.take(np.arange(18))[0], pixels)
    assert len(log.read_text().splitlines()) == 18


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_files_of_a_killed_run_are_not_used_by_the_next_one(
    make_folder: MakeFolder, kept: Path, tmp_path: Path
) -> None:
    root, log = make_folder({"cat": 9, "dog": 9}), tmp_path / "log"
    process = start(root, kept, log, pause_s=0.1)
    wait_for_lines(log, 5, process)
    process.kill()
    process.communicate()
    assert files(kept) == []
    assert len(list(kept.glob(".*.tmp"))) == 1
    found = surveyed(root)
    store = loaded(found, kept)
    torch.testing.assert_close(all_of(store), expected(found))
    assert list(kept.glob(".*.tmp")) == []
    assert store.cache_use is not None
    assert store.cache_use.is_new
