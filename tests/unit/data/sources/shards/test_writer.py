"""Written shards are read back by tarfile, by webdataset if it is installed, and by ShardSource."""

import gc
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data.sources import ArraySource, FileSource, Source, open_object, open_source
from vitreous.data.sources.shards.source import INFO_NAME
from vitreous.data.sources.shards.writer import Written, write_shards
from vitreous.data.survey.facts import survey
from vitreous.errors import ConfigError, DataError, SaveError

MakeFolder = Callable[[Mapping[str, int]], Path]
COUNTS = {"train/cat": 5, "train/dög": 4, "val/cat": 2, "val/dög": 1, "test/cat": 1, "test/dög": 2}


@pytest.fixture
def folder(make_folder: MakeFolder) -> Path:
    return make_folder(COUNTS)


def rows(source: Source) -> list[tuple[bytes, str, str]]:
    """Return the content, class and split of every sample, sorted, so that the order of the source does not matter."""
    return sorted(
        (source.content(index), source.classes[source.labels[index]], str(source.splits[index]))
        for index in range(len(source))
    )


def files_in(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def written(folder: Path, out: Path, **limits: int) -> Written:
    return write_shards(open_source(folder), out, **limits)


def test_shards_are_read_back_with_the_same_bytes_labels_and_splits(folder: Path, tmp_path: Path) -> None:
    found = written(folder, tmp_path / "new" / "out")
    source, again = open_source(folder), open_source(tmp_path / "new" / "out")
    assert rows(again) == rows(source)
    assert (again.classes, again.notes) == (source.classes, ())
    assert survey(again).facts.fingerprint == survey(source).facts.fingerprint
    assert (found.num_samples, found.skipped, found.path) == (15, (), tmp_path / "new" / "out")
    assert found.shards == {split: [f"{split}-000000.tar"] for split in ("train", "val", "test")}
    assert found.size_bytes == sum(path.stat().st_size for path in found.path.glob("*.tar"))


def test_set_without_splits_is_split_identically_from_shards(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder({"a": 20, "b": 13})
    assert written(folder, tmp_path / "out").shards == {"images": ["images-000000.tar"]}
    before, after = survey(open_source(folder)), survey(open_source(tmp_path / "out"))
    assert after.facts.fingerprint == before.facts.fingerprint
    assert [len(after.indices[split]) for split in ("train", "val", "test")] == [
        len(before.indices[split]) for split in ("train", "val", "test")
    ]


def test_tarfile_reads_image_and_class_of_each_sample_in_sequence(folder: Path, tmp_path: Path) -> None:
    written(folder, tmp_path / "out")
    files = files_in(tmp_path / "out" / "train-000000.tar")
    names = list(files)
    assert [name.rpartition(".")[2] for name in names] == ["png", "cls"] * 9
    assert [name[:8] for name in names[::2]] == [f"{number:08d}" for number in range(9)]
    for image, label in zip(names[::2], names[1::2], strict=True):
        assert image.removesuffix("png") == label.removesuffix("cls")
        original = folder / "train" / ("cat", "dög")[int(files[label])] / f"{image[9:-4]}.png"
        assert files[image] == original.read_bytes()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_same_samples(folder: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    written(folder, tmp_path / "out", max_samples=4)
    source = open_source(tmp_path / "out")
    pattern = str(tmp_path / "out" / "train-{000000..000002}.tar")
    theirs = list(webdataset.WebDataset(pattern, shardshuffle=False).decode().to_tuple("png", "cls", "__key__"))
    train = np.flatnonzero(source.splits == "train")
    assert [int(label) for _, label, _ in theirs] == source.labels[train].tolist()
    assert [Path(source.describe(index)).stem for index in train] == [key for _, _, key in theirs]
    raw = list(webdataset.WebDataset(pattern, shardshuffle=False).to_tuple("png"))
    assert [content for (content,) in raw] == [source.content(index) for index in train]
    gc.collect()  # webdataset leaves files open; collected later, they would raise warnings in another test


def test_same_samples_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        written(folder, tmp_path / name, max_samples=2)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_classes_are_mixed_for_sequential_reading(make_folder: MakeFolder, tmp_path: Path) -> None:
    written(make_folder({"a": 30, "b": 30}), tmp_path / "out", max_samples=30)
    labels = open_source(tmp_path / "out").labels
    assert 8 <= labels[:30].sum() <= 22
    assert np.abs(np.diff(labels)).sum() > 15


def test_shards_respect_the_limits_of_samples_and_bytes(folder: Path, tmp_path: Path) -> None:
    found = written(folder, tmp_path / "few", max_samples=4)
    assert [len(names) for names in found.shards.values()] == [3, 1, 1]
    small = written(folder, tmp_path / "small", max_bytes=10_240)
    sizes = [path.stat().st_size for path in small.path.glob("*.tar")]
    assert max(sizes) == 10_240
    assert len(sizes) > 3
    single = written(folder, tmp_path / "single", max_bytes=1)
    assert {len(files_in(path)) for path in single.path.glob("*.tar")} == {2}
    for out in ("few", "small", "single"):
        assert rows(open_source(tmp_path / out)) == rows(open_source(folder))


def test_info_file_has_the_layout_that_timm_reads_and_the_classes(folder: Path, tmp_path: Path) -> None:
    written(folder, tmp_path / "out", max_samples=4)
    info = json.loads((tmp_path / "out" / INFO_NAME).read_text("utf-8"))
    assert info["classes"] == ["cat", "dög"]
    assert info["splits"]["train"] == {
        "name": "train",
        "num_samples": 9,
        "filenames": ["train-000000.tar", "train-000001.tar", "train-000002.tar"],
        "shard_lengths": [4, 4, 1],
        "class_counts": [5, 4],
    }
    assert info["splits"]["test"]["class_counts"] == [1, 2]
    for split in info["splits"].values():
        for name, length in zip(split["filenames"], split["shard_lengths"], strict=True):
            assert len(files_in(tmp_path / "out" / name)) == 2 * length


def test_groups_weights_and_empty_classes_are_kept(folder: Path, tmp_path: Path) -> None:
    table = folder / "table.csv"
    table.write_text(
        "path,label,group,weight\ntrain/cat/0.png,x,anna,2.5\ntrain/cat/1.png,y,anna,1\ntrain/cat/2.png,x,,0.25\n",
        "utf-8",
    )
    written(table, tmp_path / "out")
    source = open_source(tmp_path / "out")
    assert source.groups is not None
    assert source.weights is not None
    found = zip(map(source.content, range(3)), source.groups.tolist(), source.weights.tolist(), strict=True)
    content = [(folder / "train" / "cat" / f"{number}.png").read_bytes() for number in range(3)]
    assert sorted(found) == sorted(zip(content, ["anna", "anna", ""], [2.5, 1.0, 0.25], strict=True))


def test_names_become_keys_without_dots_and_extensions_become_common_ones(folder: Path, tmp_path: Path) -> None:
    for old, new in (("0.png", "my photo.v2 (ü).JPEG"), ("1.png", "日本.tiff"), ("2.png", f"{'x' * 90}.Png")):
        (folder / "train" / "cat" / old).rename(folder / "train" / "cat" / new)
    written(folder, tmp_path / "out")
    keys = {name.partition("-")[2] for name in files_in(tmp_path / "out" / "train-000000.tar") if "cls" not in name}
    assert {"my_photo_v2.jpg", f"{'x' * 48}.png"} < keys
    assert any(name.endswith(".tif") for name in files_in(tmp_path / "out" / "train-000000.tar"))
    assert rows(open_source(tmp_path / "out")) == rows(open_source(folder))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_memory_become_png_without_loss(
    channels: int, make_arrays: Callable[..., ArraySource], tmp_path: Path
) -> None:
    arrays = make_arrays(4, 3, channels=channels)
    arrays.test_ratio = 0.35
    write_shards(arrays, tmp_path / "out")
    source = open_source(tmp_path / "out")
    pixels = sorted(np.asarray(source.image(index)).tobytes() for index in range(7))
    assert pixels == sorted(image.tobytes() for image in arrays.images)
    assert (Counter(source.labels.tolist()), source.test_ratio) == ({0: 4, 1: 3}, 0.35)
    assert source.classes == ("class 0", "class 1")


def test_encoded_images_from_python_get_the_extension_of_their_format(folder: Path, tmp_path: Path) -> None:
    class Pairs:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[bytes, int]:
            return (folder / "train" / "cat" / f"{index}.png").read_bytes(), index % 2

    write_shards(open_object(Pairs()), tmp_path / "out")
    assert [Path(name).suffix for name in files_in(tmp_path / "out" / "images-000000.tar")] == [".png", ".cls"] * 4


@pytest.mark.parametrize(("format_", "extension"), [("jpeg2000", ".jp2"), ("mpo", ".jpg"), ("ico", ".png")])
def test_image_of_a_format_with_another_extension_is_read_back(format_: str, extension: str, tmp_path: Path) -> None:
    pairs = []
    for label in range(2):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), (90, 200 * label, 30)).save(file, format_)
        pairs.append((file.getvalue(), label))
    write_shards(open_object(pairs), tmp_path / "out")
    assert [Path(name).suffix for name in files_in(tmp_path / "out" / "images-000000.tar")] == [extension, ".cls"] * 2
    greens = [np.asarray(open_source(tmp_path / "out").image(index))[9, 9, 1] for index in range(2)]
    np.testing.assert_allclose(sorted(greens), [0, 200], atol=2)


def test_unreadable_files_are_left_out_and_listed_but_damaged_images_are_kept(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "cat" / "0.png").write_bytes(b"no image")
    (folder / "train" / "cat" / "1.png").unlink()
    (folder / "train" / "cat" / "1.png").symlink_to("nowhere")
    found = written(folder, tmp_path / "out")
    assert found.num_samples == 14
    assert found.skipped == ((str(folder / "train" / "cat" / "1.png"), "No such file or directory"),)
    facts = survey(open_source(tmp_path / "out")).facts
    assert [reason for _, reason in facts.skipped] == [survey(open_source(folder)).facts.skipped[0][1]]


def test_source_without_readable_images_is_an_error_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    source = open_source(folder)
    assert isinstance(source, FileSource)
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(
        DataError,
        match=r"^data\.source=set: none of 15 images can be read \(the first, .*: No such file.*\); check the files$",
    ):
        write_shards(source, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"set"}


@pytest.mark.parametrize("key", ["max_samples", "max_bytes"])
def test_limit_below_one_is_refused(key: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{key}=-3: must be at least 1; leave it out to use the default$"):
        written(folder, tmp_path / "out", **{key: -3})


def test_non_empty_folder_is_refused_and_an_empty_one_is_filled(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    written(folder, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    for taken in (out, out / INFO_NAME):
        with pytest.raises(ConfigError) as caught:
            written(folder, taken)
        assert str(caught.value) == (
            f"out={taken}: exists and is not an empty folder; use a new folder, or remove it first"
        )
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_folder_below_a_file_is_a_save_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"/file: cannot be created \(File exists\); choose another folder$"):
        written(folder, tmp_path / "file" / "out")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_stopped_or_failed_writing_leaves_no_files(
    error: BaseException | type[BaseException], folder: Path, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done > 9:
            raise error

    with pytest.raises(SaveError if isinstance(error, OSError) else KeyboardInterrupt):
        write_shards(open_source(folder), tmp_path / "out", progress=stop)
    assert {path.name for path in tmp_path.iterdir()} == {"set"}


def test_progress_reaches_the_number_of_samples(folder: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    write_shards(open_source(folder), tmp_path / "out", progress=lambda done, total: reports.append((done, total)))
    assert reports[-1] == (15, 15)
    assert reports == sorted(reports)


def test_real_photos_are_read_back_unchanged(shared: Callable[..., Path], tmp_path: Path) -> None:
    source = open_source(shared("sign-digits"))
    write_shards(source, tmp_path / "out", max_samples=1000)
    again = open_source(tmp_path / "out")
    assert rows(again) == rows(source)
    assert again.classes == source.classes
