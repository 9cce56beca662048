"""Cases of `data/` after a source is open: surveys, splits, decoding, stored pixels, batches."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from tests.advice.data_cases import PIXELS, images
from tests.advice.walk import Refusals, case
from tests.unit.data.sources.builders import png

from vitreous.data.augmentation.augment import Augment
from vitreous.data.build import sampling_weights
from vitreous.data.config import DataConfig, check_value_range
from vitreous.data.decoding import limits
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.doctor.examine import examine
from vitreous.data.loader import TrainLoader
from vitreous.data.pixels import pixel_file
from vitreous.data.pixels.decode_samples import decode_samples
from vitreous.data.pixels.digest import digest_of
from vitreous.data.pixels.store import MemoryStore, measure_mean_std
from vitreous.data.sources import open_object, open_source
from vitreous.data.survey.facts import survey

PREPROCESS = Preprocess((4, 5), 3, mean=(0.5,) * 3, std=(0.5,) * 3)


def store(num_images: int) -> MemoryStore:
    return MemoryStore(torch.zeros((num_images, 3, 4, 5), dtype=torch.uint8), torch.arange(num_images) % 2)


def loader(num_images: int, batch_size: int, **options: Any) -> TrainLoader:
    return TrainLoader(store(num_images), PREPROCESS, Augment(), batch_size, 0, **options)


@case
def batches(folder: Path) -> Refusals:
    yield lambda: loader(0, 2), "add at least one"
    assert loader(1, 2)
    assert measure_mean_std(store(1))
    yield lambda: loader(4, 2, share=(0, 3)), "use at most 2 processes"
    assert loader(4, 2, share=(0, 2))


@case
def samplers(folder: Path) -> Refusals:
    def weights(sampler: str, *shape: int) -> object:
        config = DataConfig(source="t.csv", img_size=(4, 5), in_chans=3, num_classes=2, sampler=sampler)  # type: ignore[arg-type]
        return sampling_weights(config, np.zeros(shape, np.bool_ if len(shape) > 1 else np.int64))

    yield lambda: weights("weighted", 2), "use balanced or shuffle"
    assert weights("balanced", 2) is not None
    assert weights("shuffle", 2) is None
    yield lambda: weights("weighted", 2, 2), "use shuffle"
    yield lambda: weights("balanced", 2, 2), "use objective.class_weights=balanced"
    assert weights("shuffle", 2, 2) is None


@case
def ranges_of_values(folder: Path) -> Refusals:
    yield lambda: check_value_range("data", (0.0, 1.0, 2.0), 1), "give the values of black and white"
    yield lambda: check_value_range("data", (1.0, 0.0), 3), "give black before white"
    check_value_range("data", (0.0, 1.0), 3)
    yield lambda: Preprocess((4, 5), 3).normalize(torch.zeros(1, 3, 4, 5, dtype=torch.uint8)), "set mean and std"
    mean, std = measure_mean_std(store(1))
    assert Preprocess((4, 5), 3, mean=mean, std=std).normalize(torch.zeros(1, 3, 4, 5, dtype=torch.uint8)).dim() == 4
    for text in ("many", "0", "-1"):
        with patch.dict("os.environ", {limits.VARIABLE: text}):
            yield limits.max_pixels, f"{limits.DEFAULT_MAX_PIXELS} is the default"
    with patch.dict("os.environ", {limits.VARIABLE: str(limits.DEFAULT_MAX_PIXELS)}):
        assert limits.max_pixels() == limits.DEFAULT_MAX_PIXELS


@case
def images_without_pixels(folder: Path) -> Refusals:
    for name, level in (("cat", 1), ("dog", 2)):
        noise = np.random.default_rng(level).integers(0, 256, (30, 40, 3), np.uint8)
        (folder / name).mkdir()
        (folder / name / "0.png").write_bytes(png(noise)[:900])
    yield lambda: examine(survey(open_source(folder))), "replace them"
    images(folder)
    assert examine(survey(open_source(folder))).summaries.indices.size == 2


@case
def images_that_change(folder: Path) -> Refusals:
    source = open_source(images(folder))
    digests = np.frombuffer(b"".join(digest_of(source.content(n)) for n in range(2)), np.uint8).reshape(2, -1)
    kept: list[int] = []

    def decode() -> object:
        return decode_samples(source, np.arange(2), PREPROCESS, lambda row, _: kept.append(row), digests=digests)

    content = (folder / "cat/0.png").read_bytes()
    (folder / "cat/0.png").write_bytes(PIXELS)
    yield decode, "run again once it no longer changes"
    (folder / "cat/0.png").unlink()
    yield decode, "run again when it can be read"
    (folder / "cat/0.png").write_bytes(content)
    assert decode() == {}
    assert {0, 1} <= set(kept)


@case
def files_of_pixels(folder: Path) -> Refusals:
    path, shape = folder / "x.pixels", (2, 3, 4, 5)

    def write(footer: object) -> None:
        with path.open("wb") as file, patch.object(pixel_file.json, "dumps", return_value=footer):
            pixel_file.PixelWriter(file, shape).finish("key", {})

    def read() -> object:
        return pixel_file.PixelFile(path, "key", shape).damaged

    valid = {"key": "key", "shape": list(shape), "damaged": [[1, "no image"]]}
    for wrong in ({**valid, "key": "x"}, {**valid, "shape": [1]}, {**valid, "damaged": [[2, "no image"]]}):
        write(json.dumps(wrong))
        yield read, "delete it"
    write("no JSON")
    yield read, "delete it"
    write(json.dumps(valid))
    content = path.read_bytes()
    for changed in (content[:-1], content.replace(b"no image", b"an image")):
        path.write_bytes(changed)
        yield read, "delete it"
    path.unlink()
    write(json.dumps(valid))
    assert read() == {1: "no image"}


@case
def folds(folder: Path) -> Refusals:
    def folded(num_folds: int, *labels: str) -> object:
        pairs = [(np.full((4, 5, 3), number, np.uint8), list(text)) for number, text in enumerate(labels)]
        return survey(open_object(pairs), num_folds=num_folds)

    yield lambda: folded(3, "a", "ab", "ab"), "use fewer folds"
    assert folded(2, "a", "ab", "ab")
    yield lambda: folded(2, "a", "ab", "ac"), "add more"
    assert folded(2, "a", "ab", "ac", "ab", "a")


@case
def splits_without_training_images(folder: Path) -> Refusals:
    images(folder, "cat/0.png", "dog/0.png")
    for name in ("cat", "dog"):
        Image.open(folder / name / "0.png").save(folder / name / "copy.png")
    text = "path,label,split\n" + "".join(f"{c}/0.png,{c},test\n{c}/copy.png,{c},\n" for c in ("cat", "dog"))
    (folder / "t.csv").write_text(text)
    yield lambda: survey(open_source(folder / "t.csv")), "add some"
    images(folder, "x.png", "x.png", "x.png", "cat/1.png", "dog/1.png")
    (folder / "t.csv").write_text(text + "cat/1.png,cat,\ndog/1.png,dog,\n")
    assert survey(open_source(folder / "t.csv")).facts.num_train == 2
