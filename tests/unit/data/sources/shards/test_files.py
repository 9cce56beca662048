"""The tar files that a name stands for, on disk and at fsspec's `memory://`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.data.sources.builders import error_of, write_files

from vitreous.data.sources.shards.files import (
    MAX_SHARDS,
    LocalShard,
    RemoteShard,
    expand_braces,
    find_shards,
    is_address,
    is_shards,
    read_neighbor,
)
from vitreous.errors import DataNotFoundError, DecodeError, MissingDependencyError


def put(folder: Path, *names: str) -> Path:
    write_files(folder, {name: f"{name} is its content".encode() for name in names})
    return folder


def names(name: str | Path) -> list[str]:
    return [f"{shard.folder}/{shard.name}" for shard in find_shards(str(name))]


def refusal(name: str | Path) -> str:
    """Return the error message without the prefix that names the data source."""
    return error_of(lambda: find_shards(str(name))).removeprefix(f"data.source={name}: ")


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [
        ("a-{00..02}.tar", ["a-00.tar", "a-01.tar", "a-02.tar"]),
        ("a-{8..11}.tar", ["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]),
        ("a-{098..101}.tar", ["a-098.tar", "a-099.tar", "a-100.tar", "a-101.tar"]),
        ("{train,val}-{0..1}.tar", ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]),
        ("{x,}y.tar", ["xy.tar", "y.tar"]),
        ("plain.tar", ["plain.tar"]),
    ],
)
def test_braces_expand_as_in_a_shell(pattern: str, expanded: list[str]) -> None:
    assert expand_braces(pattern) == expanded


BRACES_RULE = "braces must hold a range or a list; write e.g. {000..007} or {train,val}"


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("a{7..3}.tar", "{7..3} runs backwards; write {3..7}"),
        ("a{}.tar", BRACES_RULE),
        ("a{x}.tar", BRACES_RULE),
        ("a{0..3.tar", BRACES_RULE),
        ("a{{0..3}}.tar", BRACES_RULE),
        ("a{0..1999}{0..1999}.tar", f"stands for over {MAX_SHARDS:,} files; use a shorter range"),
        ("a{0..999999999}.tar", f"stands for over {MAX_SHARDS:,} files; use a shorter range"),
    ],
)
def test_invalid_braces_are_refused(pattern: str, rule: str) -> None:
    assert error_of(lambda: expand_braces(pattern)) == f"data.source={pattern}: {rule}"


def test_tars_of_a_folder_are_found_in_order_without_hidden_ones(tmp_path: Path) -> None:
    put(tmp_path / "set", "b-1.tar", "a-2.TAR", ".hidden.tar", "_info.json")
    assert names(tmp_path / "set") == ["set/a-2.TAR", "set/b-1.tar"]
    assert is_shards(tmp_path / "set")


def test_split_folders_of_tars_are_found(tmp_path: Path) -> None:
    put(tmp_path, "train/1.tar", "train/0.tar", "train/._0.tar", "validation/0.tar")
    assert names(tmp_path) == ["train/0.tar", "train/1.tar", "validation/0.tar"]


@pytest.mark.parametrize("other", ["cats/1.jpg", "train/cats/1.jpg", "photo.jpg"])
def test_folder_of_images_is_not_a_folder_of_shards(other: str, tmp_path: Path) -> None:
    put(tmp_path, other)
    assert not is_shards(tmp_path)
    if "/" in other:
        put(tmp_path, "backup.tar")
        assert not is_shards(tmp_path)


@pytest.mark.parametrize("name", ["x.tar", "x-{0..3}.TAR", "x.tar.gz", "x.tgz", "s3://bucket/x", "memory://x.tar"])
def test_name_of_a_tar_or_an_address_means_shards(name: str) -> None:
    assert is_shards(name)
    assert is_address(name) == ("://" in name)


@pytest.mark.parametrize("name", ["x.csv", "digits", "hf://someone/something", "python:tar", "c:/x/y"])
def test_other_names_do_not_mean_shards(name: str) -> None:
    assert not is_shards(name)


def test_pattern_is_expanded_and_missing_files_are_an_error(tmp_path: Path) -> None:
    put(tmp_path, "train-00.tar", "train-01.tar", "val-00.tar")
    assert names(tmp_path / "train-{00..01}.tar") == [f"{tmp_path.name}/train-{i:02}.tar" for i in range(2)]
    assert refusal(tmp_path / "train-{00..02}.tar").startswith(
        "train-02.tar (one of 3 files) does not exist; did you mean train-"
    )
    assert refusal(tmp_path / "trein-00.tar") == "trein-00.tar does not exist; did you mean train-00.tar?"
    assert refusal(tmp_path / "none" / "x.tar") == "x.tar does not exist; check the path"


def test_existing_file_with_braces_in_its_name_is_not_expanded(tmp_path: Path) -> None:
    put(tmp_path, "a{0..1}.tar")
    assert names(tmp_path / "a{0..1}.tar") == [f"{tmp_path.name}/a{{0..1}}.tar"]


@pytest.mark.parametrize(
    ("name", "compression", "program"),
    [("x.tar.gz", "gzip", "gunzip"), ("x.tgz", "gzip", "gunzip"), ("x.tar.zst", "zstd", "unzstd"),
     ("x.TAR.XZ", "xz", "unxz"), ("x.tbz2", "bzip2", "bunzip2")],
)  # fmt: skip
def test_compressed_tars_are_refused_before_they_are_opened(
    name: str, compression: str, program: str, tmp_path: Path
) -> None:
    put(tmp_path, name)
    for given in (tmp_path / name, tmp_path):
        assert refusal(given) == (
            f"{name} is compressed with {compression}, so samples cannot be read individually; "
            f"decompress it once with {program} (images are compressed anyway)"
        )


def test_bytes_are_read_in_place_until_the_file_changes(tmp_path: Path) -> None:
    shard = LocalShard(put(tmp_path, "a.tar") / "a.tar")
    assert (shard.read(9, 3), shard.read(0, 0)) == (b"its", b"")
    with pytest.raises(DecodeError, match=r"^a\.tar: ends within this image$"):
        shard.read(14, 100)
    os.utime(shard.path, ns=(1, 1))
    with pytest.raises(DecodeError, match=r"^a\.tar: has changed since it was opened$"):
        shard.read(9, 3)
    shard.path.unlink()
    with pytest.raises(DecodeError, match=r"^a\.tar: No such file or directory$"):
        shard.read(9, 3)


def test_small_neighboring_file_is_read_and_a_large_one_is_not(tmp_path: Path) -> None:
    (shard,) = find_shards(str(put(tmp_path, "a.tar", "info") / "a.tar"))
    assert read_neighbor(shard, "info", 100) == b"info is its content"
    assert read_neighbor(shard, "info", 5) is None
    assert read_neighbor(shard, "nothing", 100) is None


@pytest.fixture
def memory() -> Iterator[str]:
    """An address that fsspec keeps in memory, with three tars and another file."""
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    for name in ("train-0.tar", "train-1.tar", "val-0.tar", "info"):
        files.pipe_file(f"/set/{name}", f"{name} is its content".encode())
    yield "memory://set"
    files.rm("/set", recursive=True)


def test_address_of_a_folder_or_pattern_lists_its_tars(memory: str) -> None:
    assert names(memory) == ["set/train-0.tar", "set/train-1.tar", "set/val-0.tar"]
    assert names(f"{memory}/{{train,val}}-0.tar") == ["set/train-0.tar", "set/val-0.tar"]


def test_address_of_a_folder_of_splits_lists_their_tars() -> None:
    files = pytest.importorskip("fsspec").filesystem("memory")
    for name in ("train/a.tar", "train/b.tar", "validation/a.tar", "other/a.tar"):
        files.pipe_file(f"/sets/{name}", b"its content")
    try:
        assert names("memory://sets") == ["train/a.tar", "train/b.tar", "validation/a.tar"]
    finally:
        files.rm("/sets", recursive=True)


def test_remote_bytes_are_read_in_place(memory: str) -> None:
    shard = find_shards(f"{memory}/val-0.tar")[0]
    assert (shard.size, shard.read(10, 2), shard.read(9, 0)) == (24, b"is", b"")
    assert bool(shard.tag)
    with shard.open() as file:
        assert file.read(5) == b"val-0"
    assert read_neighbor(shard, "info", 100) == b"info is its content"
    assert read_neighbor(shard, "nothing", 100) is None
    with pytest.raises(DecodeError, match=r"^val-0\.tar: ends within this image$"):
        shard.read(20, 100)


def test_server_without_range_requests_is_an_error() -> None:
    class WholeFiles:
        def info(self, path: str) -> dict[str, int]:
            return {"size": 4000}

        def cat_file(self, path: str, start: int, end: int) -> bytes:
            return b"7" * 4000

    with pytest.raises(
        DecodeError, match=r"^a\.tar: the server returns the whole file instead of the requested bytes$"
    ):
        RemoteShard(WholeFiles(), "https://host/a.tar", "a.tar").read(512, 30)


def test_address_without_tars_is_refused(memory: str) -> None:
    assert refusal(f"{memory}/train-7.tar").endswith("does not exist; check the address")
    assert refusal("memory://elsewhere") == "holds no .tar file; check the address"
    assert refusal("nosuchkind://x/y.tar").startswith("could not be reached (")


def test_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(
        MissingDependencyError, match=r"needs fsspec, which is not installed; run `pip install 'vitreous\[r"
    ):
        find_shards("s3://bucket/x.tar")


def test_name_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError):
        find_shards(str(tmp_path / ("x" * 300 + ".tar")))
