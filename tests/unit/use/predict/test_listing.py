"""list_data: paths, tables, tar files and addresses -> images in a fixed order, read only when they are classified."""

import io
import pickle
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import DataError, DataNotFoundError, DecodeError
from vitreous.use.predict.inputs import list_images, read_batch
from vitreous.use.predict.listing import Listing, Named, list_data

PREPROCESS = Preprocess(img_size=(4, 5), in_chans=1, mean=(0.5,), std=(0.5,))


def photo(level: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (5, 4), level).save(content, "PNG")
    return content.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def levels(listing: Iterable[Named]) -> list[int | str]:
    """Return the gray level of each image, or why it cannot be read, after the entries were pickled."""
    names, images = zip(*pickle.loads(pickle.dumps(list(listing))), strict=True)
    found = read_batch(PREPROCESS, images, names)
    return [pixels if isinstance(pixels, str) else int(pixels.unique()) for pixels in found]


def names(listing: Listing) -> list[str]:
    return [name for name, _ in listing]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photos whose order by path differs from that by text."""
    for number, name in enumerate(["a/2.png", "a.png", "a-b/1.png", "b.png"]):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(photo(10 + number))
    return tmp_path / "photos"


def test_folder_is_listed_like_a_list_of_its_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(list_data([str(photos)])) == list(map(str, sorted(photos.rglob("*.png"))))
    monkeypatch.chdir(tmp_path)
    for given in ("photos", ".", "photos/"):
        listing = list_data([given])
        assert names(listing) == list(map(str, list_images([Path(given)])))
        entries = list(listing)
        monkeypatch.chdir("/")  # another process may work elsewhere
        assert levels(entries) == [10, 12, 11, 13]
        monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_table_needs_only_a_column_of_paths(suffix: str, photos: Path, tmp_path: Path) -> None:
    cells = ["photos/b.png", str(photos / "a.png"), "photos/b.png", "photos/gone.png"]
    table = tmp_path / f"list{suffix}"
    if suffix == ".csv":
        table.write_text("file;note\n" + "".join(f"{cell};x\n" for cell in cells), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.table({"file": cells, "n": [1, 2, 3, 4]}), table)
    listing = list_data([str(table)])
    assert names(listing) == [str(tmp_path / cell) for cell in cells]
    assert levels(listing)[:3] == [13, 11, 13]
    assert str(levels(listing)[3]).startswith(f"{photos / 'gone.png'}: ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,x\na.png,1\n", "no column for the path among name and x"),
        ("path,file\na,b\n", None),
        ("file,image\na,b\n", "several columns may be the path"),
        ("path,x\n,1\n", "line 2: the path is empty; fill it in or delete the row"),
        ("path\n", "has headings but no rows; add one row per image"),
        ("path\nphotos/no.png\n", "and none exists"),
    ],
)
def test_unusable_table_is_refused(content: str, said: str | None, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said or "and none exists"):
        list_data([str(tmp_path / "list.csv")])


def test_images_in_tar_files_need_no_labels(tmp_path: Path) -> None:
    write_tar(tmp_path / "x-0.tar", {"a.png": photo(1), "a.cls": b"0", "b.png": photo(2), "c.txt": b"none"})
    write_tar(tmp_path / "x-1.tar", {"a.png": photo(3)})
    for given in (tmp_path, tmp_path / "x-{0..1}.tar"):
        listing = list_data([str(given)])
        assert names(listing) == [f"{tmp_path}/x-0.tar/a.png", f"{tmp_path}/x-0.tar/b.png", f"{tmp_path}/x-1.tar/a.png"]
        assert levels(listing) == [1, 2, 3]
    assert listing.notes == ["samples without an image are left out (1, e.g. x-0.tar: c)"]


def test_tar_file_that_changes_fails_only_its_own_images(tmp_path: Path) -> None:
    first, second = (write_tar(tmp_path / f"{n}.tar", {"a.png": photo(n)}) for n in (1, 2))
    listing = list_data([str(first), str(second)])
    first.write_bytes(b"")
    assert levels(listing) == ["1.tar: has changed since it was opened", 2]


def test_tar_files_next_to_images_are_ignored(photos: Path) -> None:
    write_tar(photos / "backup.tar", {"a.png": photo(1)})
    assert len(list_data([str(photos)])) == 4


@pytest.fixture
def bucket() -> Iterator[str]:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    for number, name in enumerate(["a/2.png", "b.PNG", ".trash/c.png", "readme.txt"]):
        files.pipe_file(f"/bucket/photos/{name}", photo(20 + number))
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


def test_images_at_an_address_are_listed_and_read(bucket: str) -> None:
    listing = list_data([f"{bucket}/photos", "memory://bucket/photos/b.PNG", "memory://bucket/gone.png"])
    assert names(listing)[0].endswith("bucket/photos/a/2.png")
    assert levels(listing)[:3] == [20, 21, 21]
    assert str(levels(listing)[3]).startswith("memory://bucket/gone.png: ")
    assert len(listing) == 4


def test_table_at_an_address_or_with_addresses(bucket: str, tmp_path: Path) -> None:
    import fsspec

    rows = b"path\nphotos/b.PNG\nmemory://bucket/photos/a/2.png\n"
    fsspec.filesystem("memory").pipe_file("/bucket/list.csv", rows)
    assert levels(list_data([f"{bucket}/list.csv"])) == [21, 20]
    (tmp_path / "list.csv").write_bytes(b"path\nmemory://bucket/photos/b.PNG\n")
    assert levels(list_data([str(tmp_path / "list.csv")])) == [21]


def test_tar_files_at_an_address(bucket: str, tmp_path: Path) -> None:
    import fsspec

    content = write_tar(tmp_path / "x.tar", {"a.png": photo(7)}).read_bytes()
    fsspec.filesystem("memory").pipe_file("/bucket/tars/x.tar", content)
    for name in (f"{bucket}/tars", f"{bucket}/tars/x.tar"):
        assert levels(list_data([name])) == [7]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("gone", "image=gone: no such file or folder; give images, folders, tables of paths, exports or tar files"),
        ("empty", "image=empty: a folder without images; give images or a folder of them"),
        ("x-{0..1}.tar", "x-0.tar"),
        ("none.tar", "image=none.tar: no image in 1 tar file; give images, or tar files that hold some"),
        ("memory://nothing", "holds no .tar file; check the address"),
        ("nosuch://bucket", "nosuch"),
    ],
)
def test_data_that_does_not_exist_is_reported(
    given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    write_tar(tmp_path / "none.tar", {"a.txt": b"x"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataNotFoundError, match=said.replace("(", r"\(")) as refused:
        list_data([given])
    assert "\n" not in str(refused.value)


def test_digest_changes_with_the_images_and_not_with_the_working_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list_data([str(photos)]).digest()
    monkeypatch.chdir(tmp_path)
    assert list_data([str(photos)]).digest() == before
    assert list_data([str(photos), str(photos / "a.png")]).digest() != before
    (photos / "a.png").rename(photos / "c.png")
    assert list_data([str(photos)]).digest() != before
    tar = write_tar(tmp_path / "x.tar", {"a.png": photo(1)})
    before = list_data([str(tar)]).digest()
    write_tar(tar, {"a.png": photo(1), "b.png": np.random.default_rng(0).bytes(9)})
    assert list_data([str(tar)]).digest() != before


def test_image_that_is_too_large_is_not_read(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.data.sources.shards.remote.MAX_FILE_BYTES", 9)
    monkeypatch.setattr("vitreous.data.sources.source.MAX_FILE_BYTES", 9)
    _, image = list_data([f"{bucket}/photos/b.PNG"])[0]
    with pytest.raises(DecodeError, match=r"too large for an image \(10 bytes\)"):
        image.read()  # type: ignore[union-attr]
