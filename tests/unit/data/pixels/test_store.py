from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels import store as store_module
from vitreous.data.pixels.store import LazyStore, MemoryStore, Store, load_store, machine_memory_bytes, measure_mean_std
from vitreous.data.sources import ArraySource, open_source
from vitreous.data.survey.facts import Survey, survey
from vitreous.errors import DecodeError

MakeFolder = Callable[[Mapping[str, int]], Path]
MakeArrays = Callable[..., ArraySource]
SMALL = Preprocess((5, 7), 3)


def load_split(surveyed: Survey, split: str, preprocess: Preprocess, **options: object) -> Store:
    return load_store(surveyed.source, surveyed.indices[split], preprocess, **options)  # type: ignore[arg-type]


def surveyed(source: object) -> Survey:
    return survey(source, test_ratio=0.0, val_ratio=0.0)  # type: ignore[arg-type]


def test_store_has_the_pixels_that_preprocess_gives(make_folder: MakeFolder) -> None:
    source = open_source(make_folder({"cat": 5, "dog": 4}))
    store = load_split(surveyed(source), "train", SMALL)
    assert isinstance(store, MemoryStore)
    expected = torch.stack([SMALL.pixels(source.encoded(i)) for i in range(9)])
    torch.testing.assert_close(store.pixels, expected)
    torch.testing.assert_close(store.labels, torch.tensor([0] * 5 + [1] * 4))
    torch.testing.assert_close(store.take(np.array([8, 0, 3])), expected[[8, 0, 3]])
    assert (len(store), store.skipped, list(store.source_indices)) == (9, (), list(range(9)))


def test_lazy_store_equals_the_memory_store(make_folder: MakeFolder) -> None:
    survey_of_all = surveyed(open_source(make_folder({"cat": 40, "dog": 33})))
    memory = load_split(survey_of_all, "train", SMALL, memory_limit_bytes=73 * 3 * 5 * 7)
    lazy = load_split(survey_of_all, "train", SMALL, memory_limit_bytes=73 * 3 * 5 * 7 - 1)
    assert (type(memory), type(lazy)) == (MemoryStore, LazyStore)
    order = np.random.default_rng(0).permutation(73)
    torch.testing.assert_close(lazy.take(order), memory.take(order))
    torch.testing.assert_close(lazy.labels, memory.labels)
    assert lazy.take(order[:0]).shape == (0, 3, 5, 7)


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_of_the_right_size_are_copied_unchanged(make_arrays: MakeArrays, channels: int) -> None:
    source = make_arrays(6, 5, channels=channels)
    seen: list[tuple[int, int]] = []
    all_samples = surveyed(source)
    store = load_split(all_samples, "train", Preprocess((6, 8), channels), progress=lambda *done: seen.append(done))
    expected = torch.stack([Preprocess((6, 8), channels).pixels(image) for image in source.images])
    assert isinstance(store, MemoryStore)
    torch.testing.assert_close(store.pixels, expected)
    assert seen == [(11, 11)]


def test_damaged_files_are_skipped_and_listed_in_both_stores(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 5, "dog": 4})
    cut = root / "cat" / "3.png"
    cut.write_bytes(cut.read_bytes()[:200])
    source = open_source(root)
    for limit in (None, 0):
        store = load_split(surveyed(source), "train", SMALL, memory_limit_bytes=limit)
        assert store.skipped == ((str(cut), "image file is truncated"),)
        assert list(store.source_indices) == [0, 1, 2, 4, 5, 6, 7, 8]
        torch.testing.assert_close(store.labels, torch.tensor([0] * 4 + [1] * 4))
        torch.testing.assert_close(store.take(np.array([3])), SMALL.pixels(source.encoded(4))[None])


def test_split_of_only_damaged_files_gives_an_empty_store_that_lists_them(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    survey_of_all = surveyed(open_source(root))
    (root / "cat" / "0.png").write_text("text")
    (root / "dog" / "0.png").unlink()
    store = load_split(survey_of_all, "train", SMALL)
    assert len(store) == 0
    assert store.skipped[0] == (str(root / "cat" / "0.png"), "not an image that Pillow can read")
    assert store.skipped[1][0] == str(root / "dog" / "0.png")


def test_empty_split_gives_an_empty_store(make_folder: MakeFolder) -> None:
    store = load_split(surveyed(open_source(make_folder({"cat": 2, "dog": 2}))), "test", SMALL)
    assert len(store) == 0
    assert store.take(np.arange(0)).shape == (0, 3, 5, 7)


def test_file_damaged_after_loading_is_an_error_of_a_lazy_store(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 2, "dog": 2})
    lazy = load_split(surveyed(open_source(root)), "train", SMALL, memory_limit_bytes=0)
    (root / "dog" / "1.png").write_text("text")
    with pytest.raises(DecodeError) as caught:
        lazy.take(np.array([0, 3]))
    assert str(caught.value) == f"{root / 'dog' / '1.png'}: not an image that Pillow can read"


def test_to_gives_a_store_on_the_device(make_folder: MakeFolder) -> None:
    survey_of_all = surveyed(open_source(make_folder({"cat": 2, "dog": 2})))
    for limit in (None, 0):
        moved = load_split(survey_of_all, "train", SMALL, memory_limit_bytes=limit).to("meta")
        assert (moved.device.type, moved.labels.device.type) == ("meta", "meta")
        assert moved.take(np.array([1, 2])).device.type == "meta"


@pytest.mark.parametrize("bytes_per_chunk", [1, 16 << 20])
def test_mean_and_std_are_those_of_all_pixels(
    make_arrays: MakeArrays, monkeypatch: pytest.MonkeyPatch, bytes_per_chunk: int
) -> None:
    monkeypatch.setattr(store_module, "_BYTES_PER_CHUNK", bytes_per_chunk)
    source = make_arrays(9, 8, channels=3)
    mean, std = measure_mean_std(load_split(surveyed(source), "train", Preprocess((6, 8), 3)))
    unit = source.images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, unit.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, unit.std(axis=(0, 1, 2)), rtol=1e-12)


def test_std_of_constant_images_is_one_gray_level() -> None:
    mean, std = measure_mean_std(MemoryStore(torch.full((4, 1, 5, 7), 51, dtype=torch.uint8), torch.zeros(4).long()))
    np.testing.assert_allclose((*mean, *std), (0.2, 1 / 255))


def test_memory_limit_defaults_to_a_quarter_of_the_machine(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey_of_all = surveyed(open_source(make_folder({"cat": 2, "dog": 2})))
    needed = 4 * 3 * 5 * 7
    monkeypatch.setattr(store_module, "machine_memory_bytes", lambda: 4 * needed)
    assert isinstance(load_split(survey_of_all, "train", SMALL), MemoryStore)
    monkeypatch.setattr(store_module, "machine_memory_bytes", lambda: 4 * needed - 4)
    assert isinstance(load_split(survey_of_all, "train", SMALL), LazyStore)


def test_memory_is_that_of_the_container_if_it_has_a_lower_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: "max\n")
    machine = machine_memory_bytes()
    assert machine > 1 << 28
    monkeypatch.setattr(Path, "read_text", lambda self: "123456789\n")
    assert machine_memory_bytes() == 123456789
    monkeypatch.setattr(store_module.os, "sysconf_names", {})
    monkeypatch.setattr(Path, "read_text", lambda self: str(1 << 62))
    assert machine_memory_bytes() == 8 << 30


def test_large_photos_are_decoded_at_a_reduced_size_with_nearly_equal_pixels(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 0, "dog": 0})
    smooth = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    photo = Image.fromarray(smooth).resize((900, 600), Image.Resampling.BICUBIC)
    for name in ("cat", "dog"):
        photo.save(root / name / "photo.jpg", quality=95)
    store = load_split(surveyed(open_source(root)), "train", Preprocess((20, 30), 3))
    expected = np.array(photo.resize((30, 20), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(store.take(np.array([0]))[0].permute(1, 2, 0).numpy() - expected).max() <= 6
