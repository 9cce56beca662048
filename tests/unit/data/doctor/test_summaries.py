"""ImageSummaries: statistics and thumbnails equal those computed naively from the pixels."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.doctor.near_duplicates import SIDE_PX
from vitreous.data.doctor.summaries import COLOR_SIDE_PX, summarize_source, summarize_stores
from vitreous.data.pixels.store import MemoryStore, load_store
from vitreous.data.sources import ArraySource, FileSource, open_source

MakeFolder = Callable[[Mapping[str, int]], Path]


def test_statistics_equal_those_of_the_pixels(make_folder: MakeFolder) -> None:
    source = open_source(make_folder({"a": 3, "b": 2}))
    summaries = summarize_source(source, {})
    for index in range(5):
        pixels = np.asarray(source.image(index), dtype=np.float64)
        np.testing.assert_allclose(summaries.means[index], pixels.mean(axis=(0, 1)), rtol=1e-6)
        np.testing.assert_allclose(summaries.stds[index], pixels.std(axis=(0, 1)), rtol=1e-6)
    assert summaries.sizes.tolist() == [[9, 12]] * 5
    assert summaries.kinds.tolist() == ["PNG RGB"] * 5
    assert summaries.labels.tolist() == [0, 0, 0, 1, 1]


def test_thumbnails_equal_those_of_pillow(make_arrays: Callable[..., ArraySource]) -> None:
    source = make_arrays(2, 2, channels=3)
    summaries = summarize_source(source, {})
    for index in range(4):
        small = Image.fromarray(source.images[index]).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(summaries.gray[index], np.asarray(small.convert("L")))
        wanted = np.asarray(small.resize((COLOR_SIDE_PX, COLOR_SIDE_PX), Image.Resampling.BOX), dtype=float)
        np.testing.assert_allclose(summaries.color[index], wanted, atol=1)


def test_each_sample_has_its_split(make_arrays: Callable[..., ArraySource]) -> None:
    indices = {"train": np.array([0, 4]), "val": np.array([1]), "test": np.array([2])}
    assert summarize_source(make_arrays(3, 2), indices).splits.tolist() == ["train", "val", "test", "", "train"]


def test_equal_bytes_have_equal_contents(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 3, "b": 2})
    (root / "b" / "0.png").write_bytes((root / "a" / "1.png").read_bytes())
    contents = summarize_source(open_source(root), {}).contents.tolist()
    assert contents[1] == contents[3]
    assert len(set(contents)) == 4


def test_unreadable_images_are_listed_and_not_summarized(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 3, "b": 2})
    (root / "a" / "0.png").write_bytes(b"no image")
    whole = (root / "b" / "0.png").read_bytes()
    (root / "b" / "0.png").write_bytes(whole[: len(whole) // 2])  # the header is intact
    summaries = summarize_source(open_source(root), {})
    assert summaries.indices.tolist() == [1, 2, 4]
    assert [index for index, _ in summaries.unreadable] == [0, 3]
    assert summaries.unreadable[0][1] == "not an image that Pillow can read"
    assert "truncated" in summaries.unreadable[1][1]
    assert {
        len(part)
        for part in (
            summaries.labels,
            summaries.gray,
            summaries.color,
            summaries.means,
            summaries.sizes,
            summaries.kinds,
        )
    } == {3}


def test_rotated_photo_is_measured_upright(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, :20] = 250  # the left half is the upper half of the upright photo
    Image.fromarray(pixels).save(root / "a" / "9.png", exif=exif)
    summaries = summarize_source(open_source(root), {})
    assert summaries.sizes[1].tolist() == [40, 20]
    assert summaries.gray[1, :12].min() > 240
    assert summaries.gray[1, 20:].max() < 10


def test_gray_photo_in_an_rgb_jpeg_has_no_color(tmp_path: Path) -> None:
    gray = np.random.default_rng(1).integers(0, 256, (6, 6), dtype=np.uint8)
    image = Image.fromarray(gray).resize((48, 48), Image.Resampling.BICUBIC).convert("RGB")
    image.save(tmp_path / "a.jpg", quality=60)
    tinted = np.asarray(image) * np.array([1, 0.8, 0.7])
    Image.fromarray(tinted.astype(np.uint8)).save(tmp_path / "b.jpg")
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    source = FileSource(name="x", classes=("a", "b"), paths=paths, labels=np.array([0, 1]), splits=["", ""])
    assert summarize_source(source, {}).without_color.tolist() == [True, False]


def test_large_jpeg_decoded_at_reduced_size_has_the_same_statistics(tmp_path: Path) -> None:
    coarse = np.random.default_rng(2).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    large = Image.fromarray(coarse).resize((900, 700), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    large.save(file, "JPEG", quality=95)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").write_bytes(file.getvalue())
    summaries = summarize_source(open_source(tmp_path), {})
    wanted = np.asarray(large, dtype=float)
    assert summaries.sizes[0].tolist() == [700, 900]
    np.testing.assert_allclose(summaries.means[0], wanted.mean(axis=(0, 1)), atol=1)
    np.testing.assert_allclose(summaries.stds[0], wanted.std(axis=(0, 1)), atol=1)


def test_progress_counts_every_sample(make_arrays: Callable[..., ArraySource]) -> None:
    seen: list[tuple[int, int]] = []
    summarize_source(make_arrays(3, 4), {}, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (7, 7)


# Summaries of stores.


@pytest.mark.parametrize("channels", [1, 3])
def test_summaries_of_stores_equal_those_of_the_source(make_arrays: Callable[..., ArraySource], channels: int) -> None:
    source = make_arrays(4, 3, channels=channels)
    preprocess = Preprocess((6, 8), channels)
    indices = {"train": np.array([0, 1, 4, 5]), "test": np.array([2, 3, 6])}
    stores = {split: load_store(source, members, preprocess) for split, members in indices.items()}
    of_stores, of_source = summarize_stores(stores), summarize_source(source, indices)
    order = of_stores.indices
    assert order.tolist() == [0, 1, 4, 5, 2, 3, 6]
    for name in ("labels", "splits", "sizes", "kinds", "without_color"):
        np.testing.assert_array_equal(getattr(of_stores, name), getattr(of_source, name)[order], err_msg=name)
    for name, tolerance in (("means", 1e-3), ("stds", 1e-3), ("gray", 2), ("color", 2)):
        np.testing.assert_allclose(
            getattr(of_stores, name).astype(float), getattr(of_source, name)[order], atol=tolerance, err_msg=name
        )
    assert len(set(of_stores.contents.tolist())) == 7


def test_summaries_of_stores_do_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 3, 6, 8), dtype=np.uint8))
    store = MemoryStore(pixels, torch.arange(9) % 2)
    whole = summarize_stores({"train": store})
    monkeypatch.setattr("vitreous.data.doctor.summaries._CHUNK_BYTES", 2 * 3 * 6 * 8)
    parts = summarize_stores({"train": store})
    for name in ("means", "stds", "gray", "color", "contents"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_constant_image_of_a_store_has_standard_deviation_zero() -> None:
    pixels = torch.full((2, 3, 300, 301), 203, dtype=torch.uint8)
    pixels[1, :, 0, 0] = 0
    stds = summarize_stores({"train": MemoryStore(pixels, torch.tensor([0, 1]))}).stds
    assert stds[0].max() < 1e-4
    np.testing.assert_allclose(stds[1], pixels[1, 0].double().std(correction=0).item(), rtol=1e-4)
