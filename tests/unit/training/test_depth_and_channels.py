"""Runs on images of more than 8 bits and of several channels, from files to predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

import vitreous as vt
from vitreous.errors import ClippedWarning, ConfigError
from vitreous.use.inspect import inspect

TINY = {
    "model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2, "data.cache": "none",
    "data.policy": "randaugment", "data.color_jitter": 0.3,
}  # fmt: skip


def write(path: Path, values: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")
    elif path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def levels(root: Path, suffix: str, peaks: tuple[float, float], dtype: str = "uint16", channels: int = 1) -> Path:
    """Write two classes that differ only in level."""
    rng = np.random.default_rng(0)
    for name, peak in zip(("cold", "hot"), peaks, strict=True):
        for number in range(30):
            values = rng.uniform(0.2, 1.0, (8, 8, channels)).squeeze() * peak
            write(root / name / f"{number}{suffix}", values.astype(dtype))
    return root


def plan_of(run: vt.Run) -> str:
    return (run.path / "plan.md").read_text()


@pytest.mark.slow
def test_classes_that_differ_only_in_level_are_distinguished_by_one_range_that_prediction_uses(tmp_path: Path) -> None:
    data = levels(tmp_path / "data", ".png", (900, 3600))
    run = vt.train(data, epochs=12, out=tmp_path / "run", config=TINY)
    assert run.accuracy == 1.0
    assert "| `data.value_range` | 0,4095 | all 60 images have more than 8 bits" in plan_of(run)
    assert run.metadata["preprocess"]["value_range"] == [0.0, 4095.0]
    bright = np.full((8, 8), 4095, np.uint16)
    assert (run.predict(bright // 6)[0].label, run.predict(bright // 2)[0].label) == ("cold", "hot")
    with pytest.warns(ClippedWarning, match=r"1 image with values beyond data.value_range=0,4095: 50% of the values"):
        assert run.predict([bright + np.uint16(1), bright])[0].label == "hot"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "dtype", "channels"), [(".npy", "float32", 2), (".npy", "uint8", 16), (".tif", "uint16", 13)]
)
def test_images_of_several_channels_train_and_predict(suffix: str, dtype: str, channels: int, tmp_path: Path) -> None:
    data = levels(tmp_path / "data", suffix, (90, 250), dtype, channels)
    run = vt.train(data, epochs=12, out=tmp_path / "run", config=TINY)
    assert (run.accuracy, run.model.config.in_chans) == (1.0, channels)
    assert len(run.metadata["preprocess"]["mean"]) == channels
    note = f"images of {channels} channels have no colors: augmentation goes without saturation of data.policy and "
    assert note in plan_of(run)
    assert run.predict(data / "hot" / f"1{suffix}")[0].label == "hot"
    assert run.predict(run.path / "example.npy")[0].label == run.metadata["example_class"]
    assert run.evaluate(data).score.accuracy == 1.0
    assert ("channels", str(channels)) in inspect(str(data)).facts


def test_channels_that_the_images_do_not_have_are_refused_with_those_that_they_have(tmp_path: Path) -> None:
    five = levels(tmp_path / "five", ".npy", (90, 250), "uint8", 5)
    with pytest.raises(ConfigError, match=r"^data.in_chans=3: the images of five have 5 channels; use 5$"):
        vt.train(five, out=tmp_path / "run", config={"data.in_chans": 3})
    gray = levels(tmp_path / "gray", ".png", (90, 250), "uint8")
    with pytest.raises(ConfigError, match=r"^data.in_chans=13: the images of gray have 1 channel; use 1$"):
        vt.train(gray, out=tmp_path / "run", config={"data.in_chans": 13})


@pytest.mark.slow
def test_weights_for_colors_start_a_model_for_other_channels(tmp_path: Path) -> None:
    five = levels(tmp_path / "five", ".npy", (90, 250), "uint8", 5)
    rng = np.random.default_rng(1)
    for name in "ab":
        for number in range(12):
            write(tmp_path / "color" / name / f"{number}.png", rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    colors = vt.train(tmp_path / "color", epochs=1, out=tmp_path / "colors", config=TINY)
    run = vt.train(five, epochs=1, pretrained=colors.path, out=tmp_path / "run")
    assert run.model.config.in_chans == 5
    assert "the first layer is converted from 3 channels to 5 channels" in plan_of(run)


def test_arrays_next_to_image_files_are_not_images(tmp_path: Path) -> None:
    data = levels(tmp_path / "data", ".png", (90, 250), "uint8")
    for folder in data.iterdir():
        np.save(folder / "features.npy", np.zeros(7))
    run = vt.train(data, epochs=1, out=tmp_path / "run", config=TINY)
    assert "left out" not in plan_of(run)
    assert run.model.config.in_chans == 1
