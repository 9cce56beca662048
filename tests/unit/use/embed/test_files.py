"""Files of embeddings: read back by numpy, pyarrow and csv; complete or absent."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from tests.unit.use.embed.test_embeddings import embeddings

from vitreous.errors import ConfigError, SaveError
from vitreous.use.embed.embeddings import Embeddings
from vitreous.use.embed.files import check_embeddings_path, write_embeddings

HOSTILE = ('a,"b\nc.png', "=1+1.png", "ü  \t.png")


@pytest.fixture
def hostile() -> Embeddings:
    plain = embeddings(np.random.default_rng(4).normal(size=(3, 5)))
    return Embeddings(HOSTILE, plain.vectors, plain.positions, plain.thumbnails)


def test_npy_file_holds_the_vectors_and_its_csv_file_the_paths_in_their_order(
    hostile: Embeddings, tmp_path: Path
) -> None:
    assert write_embeddings(tmp_path / "x.npy", hostile) == [tmp_path / "x.npy", tmp_path / "x.paths.csv"]
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy", allow_pickle=False), hostile.vectors)
    with (tmp_path / "x.paths.csv").open(encoding="utf-8", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == list(HOSTILE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "x.paths.csv"]


def test_parquet_file_holds_paths_and_vectors(hostile: Embeddings, tmp_path: Path) -> None:
    assert write_embeddings(tmp_path / "x.parquet", hostile) == [tmp_path / "x.parquet"]
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert table.column("path").to_pylist() == list(HOSTILE)
    vectors = np.array(table.column("embedding").to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(vectors, hostile.vectors)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x.csv: ends in .csv; use one of .npy, .parquet$"):
        check_embeddings_path(tmp_path / "x.csv")


def test_interrupted_write_leaves_the_old_file(
    hostile: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.npy").write_bytes(b"old")

    def fail(file: object, vectors: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(SaveError):
        write_embeddings(tmp_path / "x.npy", hostile)
    assert (tmp_path / "x.npy").read_bytes() == b"old"
    assert not list(tmp_path.glob(".*"))
