"""Small data sets for tests: drawn images in folders, arrays, and real data if it is on this machine."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitreous.data.doctor.near_duplicates import SIDE_PX
from vitreous.data.doctor.summaries import COLOR_SIDE_PX, ImageSummaries
from vitreous.data.sources import ArraySource

_SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[[Mapping[str, int]], Path]:
    """Make a folder with the given number of different RGB images, 12x9 px, in each subfolder."""

    def make(counts: Mapping[str, int]) -> Path:
        root = tmp_path / "set"
        root.mkdir(exist_ok=True)
        seed = 0
        for name, count in counts.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / f"{number}.png")
                seed += 1
        return root

    return make


@pytest.fixture
def make_arrays() -> Callable[..., ArraySource]:
    """Make a source of noise arrays, 8x6 px, with the given number of images per class."""

    def make(*counts: int, channels: int = 1, given: str = "") -> ArraySource:
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        shape = (len(labels), 6, 8) if channels == 1 else (len(labels), 6, 8, channels)
        return ArraySource(
            name="drawn",
            classes=[f"class {number}" for number in range(len(counts))],
            images=np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8),
            labels=labels,
            splits=[given] * len(labels),
        )

    return make


@pytest.fixture
def shared() -> Callable[..., Path]:
    """Find a path in the real data, which is not part of the repository; skip the test if it is missing."""

    def find(*parts: str) -> Path:
        path = _SHARED.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"real data is not part of the repository, and {path} does not exist")
        return path

    return find


@pytest.fixture
def make_summaries() -> Callable[..., ImageSummaries]:
    """Make summaries of noise images, 32 px square, all for training; keyword arguments replace fields."""

    def make(labels: Sequence[int], **fields: Any) -> ImageSummaries:
        count, draw = len(labels), np.random.default_rng(0)
        values: dict[str, Any] = {
            "indices": np.arange(count),
            "labels": np.array(labels, dtype=np.int64),
            "splits": np.full(count, "train"),
            "contents": np.arange(count),
            "sizes": np.full((count, 2), 32),
            "kinds": np.full(count, "PNG RGB"),
            "means": np.full((count, 3), 100, dtype=np.float32) + draw.normal(0, 9, (count, 3)),
            "stds": np.full((count, 3), 50, dtype=np.float32) + draw.normal(0, 5, (count, 3)),
            "gray": draw.integers(0, 256, (count, SIDE_PX, SIDE_PX), dtype=np.uint8),
            "color": draw.integers(0, 256, (count, COLOR_SIDE_PX, COLOR_SIDE_PX, 3), dtype=np.uint8),
        }
        return ImageSummaries(**values | {name: _array(value) for name, value in fields.items()})

    return make


def _array(value: Any) -> Any:
    return value if isinstance(value, tuple) else np.asarray(value)
