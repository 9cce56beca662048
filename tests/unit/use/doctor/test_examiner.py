"""examine_data: facts, tables and histograms of a data set, and labels judged by the features of a model."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.data.sources import open_source
from vitreous.errors import DataError
from vitreous.training.folder.records import ignore
from vitreous.use.doctor.examiner import _features, examine_data
from vitreous.use.embed.embedder import Embedder
from vitreous.use.run import Run


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    """A copy of the photos that a test may modify."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


def test_facts_count_readable_images(own_photos: Path) -> None:
    broken = own_photos / "two words" / "bild 4 ü.png"
    broken.write_bytes(broken.read_bytes()[:-40])  # the header is intact
    report = examine_data(str(own_photos), ignore)
    facts = dict(report.facts)
    rows = [[int(cell) for cell in row[1:]] for row in report.class_rows[1:]]
    train, val, test = np.array(rows).sum(axis=0).tolist()
    assert train + val + test == 71
    assert facts["images"] == f"{train} for training, {val} for validation, {test} for testing"
    assert facts["unreadable files"] == "1"
    assert facts["size"] == "median 9x14 px (height x width), all equal"
    assert facts["color"] == "71 images with color, 0 without"
    assert {name: sum(counts.values()) for name, counts in report.histograms.items()} == {
        "shorter side": 71, "width / height": 71, "file type": 71, "mean brightness": 71,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("split", "shown"),
    [("", "2, each either trained on or held out"), ("test", "2, 1 of them both trained on and held out")],
)
def test_facts_count_groups_and_gray_images_have_one_channel(split: str, shown: str, tmp_path: Path) -> None:
    rows, given = (
        ["path,label,patient,split"],
        dict.fromkeys(range(3), split and "train") | dict.fromkeys(range(3, 6), split),
    )
    for number in range(12):
        Image.new("L", (8, 8), 10 * number).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'ab'[number % 2]},{'p' if number < 6 else 'q'},{given.get(number, '')}")
    (tmp_path / "x.csv").write_text("\n".join(rows), encoding="utf-8")
    facts = dict(examine_data(str(tmp_path / "x.csv"), ignore).facts)
    assert facts["groups"] == shown
    assert re.fullmatch(r"mean \d+, standard deviation within an image 0 \(0 to 255\)", facts["pixels"])


def test_progress_of_all_stages_is_shown_in_order(photos: Path, run: Run) -> None:
    stages: list[str] = []
    embedder = Embedder.load(run.path)
    examine_data(str(photos), lambda kind, fields: stages.append(f"{kind} {fields['what']}"), embedder=embedder)
    assert list(dict.fromkeys(stages)) == [
        "reading reading", "reading computing features", "reading decoding", "reading comparing",
        "reading judging labels",
    ]  # fmt: skip


def test_features_are_the_input_of_the_head(own_photos: Path, run: Run) -> None:
    (own_photos / "two words" / "bild 4 ü.png").write_bytes(b"no image")
    source = open_source(own_photos)
    found = _features(Embedder.load(run.path), source, "x", ignore)
    missing = [index for index in range(72) if source.describe(index).endswith("two words/bild 4 ü.png")]
    assert found.indices.tolist() == [index for index in range(72) if index not in missing]
    model = run.predictor.model
    with torch.inference_mode():
        logits = model.head(torch.from_numpy(found.values))
    pixels = torch.stack([run.predictor.preprocess.pixels(source.encoded(int(i))) for i in found.indices])
    torch.testing.assert_close(logits, run.predictor.logits(pixels), rtol=1e-4, atol=1e-4)


def test_set_without_readable_images_is_an_error_with_and_without_a_run(own_photos: Path, run: Run) -> None:
    for path in own_photos.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:-40])
    for embedder in (None, Embedder.load(run.path)):
        with pytest.raises(DataError, match=r"none of its 72 images can be decoded.*; replace them$"):
            examine_data(str(own_photos), ignore, embedder=embedder)


def test_bands_of_a_satellite_are_not_called_colors(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        np.save(tmp_path / "ab"[number % 2] / f"{number}.npy", np.full((8, 8, 6), 10 * number, dtype=np.uint8))
    facts = dict(examine_data(str(tmp_path), ignore).facts)
    assert "color" not in facts
    assert facts["pixels"].startswith("bands 1 to 3: mean ")
