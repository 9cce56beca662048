"""images.safetensors: a run recognizes its images by content."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from vitreous.data.sources import open_source
from vitreous.data.survey.facts import Survey, survey
from vitreous.errors import DamagedFileError
from vitreous.training.folder.images import splits_in_run
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training

Tiny = Callable[..., TrainRequest]


@pytest.fixture(scope="module")
def run(images_folder: Path, tiny_keys: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run; do not change it."""
    out = tmp_path_factory.mktemp("known") / "run"
    return run_training(TrainRequest(data=str(images_folder), values={**tiny_keys, "train.epochs": 0.2}, out=out))


def splits_of(surveyed: Survey) -> NDArray[np.str_]:
    splits = np.full(len(surveyed.source), "", dtype="<U5")
    for split, indices in surveyed.indices.items():
        splits[indices] = split
    return splits


@pytest.mark.parametrize("by_file", [False, True])
def test_images_have_the_split_that_they_had_in_the_run(run: RunFolder, images_folder: Path, by_file: bool) -> None:
    surveyed = survey(open_source(images_folder))
    found = splits_in_run(run.model if by_file else run.path, surveyed.digests)
    assert found is not None
    assert found.tolist() == splits_of(surveyed).tolist()
    assert set(found) == {"train", "val", "test"}


def test_unknown_images_have_no_split(run: RunFolder, images_folder: Path) -> None:
    digests = survey(open_source(images_folder)).digests[:20].copy()
    digests[::2, 0] ^= 1
    found = splits_in_run(run.path, digests)
    assert found is not None
    assert (found[::2] == "").all()
    assert (found[1::2] != "").all()


def test_largest_and_smallest_hashes_are_looked_up_within_the_file(run: RunFolder) -> None:
    extremes = np.array([[0] * 16, [255] * 16, [255] * 7 + [127] * 9, [0] * 7 + [128] * 9], dtype=np.uint8)
    assert splits_in_run(run.path, extremes).tolist() == [""] * 4  # type: ignore[union-attr]


def test_file_takes_nine_bytes_per_image(run: RunFolder) -> None:
    assert run.images.stat().st_size < 61 * 9 + 400


def test_file_of_another_run_is_not_believed(run: RunFolder, tiny: Tiny, own_images: Path, tmp_path: Path) -> None:
    (own_images / "plum" / "00.png").unlink()
    other = run_training(tiny(data=own_images, train__epochs=0.2))
    digests = survey(open_source(own_images)).digests
    assert splits_in_run(other.path, digests) is not None
    shutil.copy(run.images, other.images)
    assert splits_in_run(other.path, digests) is None
    other.images.unlink()
    assert splits_in_run(other.path, digests) is None


@pytest.mark.parametrize("num_hashes", [0, 3, 61])
def test_altered_file_is_an_error(run: RunFolder, tmp_path: Path, num_hashes: int) -> None:
    own = RunFolder(Path(shutil.copytree(run.path, tmp_path / "own")))
    with safe_open(run.images, framework="pt") as file:
        metadata = file.metadata()
    hashes, splits = torch.zeros(num_hashes, dtype=torch.int64), torch.full((2,), 9, dtype=torch.uint8)
    save_file({"hashes": hashes, "splits": splits}, own.images, metadata)
    with pytest.raises(DamagedFileError, match=r"images\.safetensors: cannot be read .*; delete it; known images are "):
        splits_in_run(own.path, np.zeros((1, 16), dtype=np.uint8))


def test_damaged_file_is_an_error_that_says_what_to_do(run: RunFolder, tmp_path: Path) -> None:
    own = RunFolder(Path(shutil.copytree(run.path, tmp_path / "own")))
    own.images.write_bytes(own.images.read_bytes()[:-9])
    with pytest.raises(DamagedFileError, match=r"images\.safetensors: .*; delete it; known images are then no longer"):
        splits_in_run(own.path, np.zeros((1, 16), dtype=np.uint8))
