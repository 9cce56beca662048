"""Pictures of the images of a run: upright, small, without metadata, and only if the images are those of the run."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data.decoding.depth import Scale
from vitreous.data.sources import open_source
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.doctor.pictures import data_uri
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.predict.table import read_held_out
from vitreous.use.report.photos import Pictures, find_images, relative_names
from vitreous.use.run import Run


def pictures(run: Run, source: Path, left_bytes: int = 1_000_000) -> Pictures:
    return Pictures(RunFolder(run.path), open_source(source), Scale(), left_bytes)


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """Two photos of 60 x 40 px that have to be turned, with a place, a camera, a comment and a color profile."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = (250, 10, 10)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "SECRET CAMERA"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        image = Image.fromarray(pixels)
        image.save(tmp_path / "set" / name / "0.jpg", exif=exif, comment=b"SECRET COMMENT", icc_profile=b"SECRET" * 9)
    return tmp_path / "set"


def test_thumbnails_are_upright_small_and_without_metadata(run: Run, camera: Path) -> None:
    (found,) = pictures(run, camera).photos([0], 500)
    assert found is not None
    assert found.size == (107, 160)  # turned, and at most 160 px
    assert np.asarray(found)[10, 50, 0] > 200  # the red half is at the top
    assert np.asarray(found)[150, 50, 0] < 60
    content = io.BytesIO()
    content.write(base64.b64decode(data_uri(found).split(",")[1]))
    assert b"SECRET" not in content.getvalue()
    stored = Image.open(content)
    assert not stored.getexif()
    assert set(stored.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_pictures_end_when_their_bytes_are_used_up(run: Run, photos: Path) -> None:
    size = len(data_uri(pictures(run, photos).photos([0], 64)[0] or Image.new("RGB", (1, 1))))
    found = pictures(run, photos, int(3.5 * size)).photos(list(range(20)), 64)
    assert 2 <= sum(picture is not None for picture in found) <= 6
    assert pictures(run, photos, 0).uris(0, explained=True) == []


def test_explanations_end_when_their_time_is_used_up(run: Run, photos: Path) -> None:
    some = pictures(run, photos)
    assert [len(some.uris(index, explained=True)) for index in (0, 1)] == [2, 2]
    some.left_s = 0.0
    assert len(some.uris(0, explained=True)) == 1


def test_models_that_are_too_large_are_not_explained(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.use.report.photos.MOST_MODEL_BYTES", 1_000)
    assert len(pictures(run, photos).uris(0, explained=True)) == 1


def test_the_second_picture_is_that_of_the_default_method(run: Run, photos: Path) -> None:
    some = pictures(run, photos)
    _, found = some.uris(5, explained=True)
    assert found == data_uri(run.explain(some.source.describe(5))[0].pictures(160)[1])


def test_an_image_that_cannot_be_decoded_has_no_picture(run: Run, camera: Path) -> None:
    (camera / "a" / "0.jpg").write_bytes(b"no image")
    some = pictures(run, camera)
    assert some.photos([0, 1], 64)[0] is None
    assert some.photos([0, 1], 64)[1] is not None
    assert some.uris(0, explained=True) == []


def test_only_the_images_of_the_run_are_found(own_run: Run, photos: Path) -> None:
    folder = RunFolder(own_run.path)
    config, outputs = read_config(folder.config).data, outputs_of_run(folder)
    found = find_images(folder, config, outputs, None)
    assert not isinstance(found, str)
    indices = outputs["test"].indices
    assert indices is not None
    assert [found.describe(int(index)) for index in indices] == [row.path for row in read_held_out(folder.predictions)]
    assert find_images(folder, config, {}, None) == "the run has no record of its held-out images"
    moved = {**outputs, "test": replace(outputs["test"], indices=indices + 1)}
    assert find_images(folder, config, moved, None) == f"{photos.name} has changed since the run"
    beyond = {**outputs, "test": replace(outputs["test"], indices=indices + 72)}
    assert find_images(folder, config, beyond, None) == f"{photos.name} has changed since the run"
    swapped = open_source(photos)
    swapped.labels = swapped.labels[::-1].copy()
    assert find_images(folder, config, outputs, swapped) == f"{photos.name} has changed since the run"
    other = open_source("digits")
    assert find_images(folder, config, outputs, other) == "digits has changed since the run"
    gone = replace(config, source=f"{photos}-gone")
    assert str(find_images(folder, gone, outputs, None)).startswith(f"data.source={photos}-gone: no such set")


@pytest.mark.parametrize(("source", "root", "paths", "names"), [
    ("/media/ann/pets", None, ["/media/ann/pets/cat/1.png", "pets/cat/1.png", "../pets/cat/1.png"], ["cat/1.png"] * 3),
    ("/media/ann/pets", None, ["cat/1.png", "/media/ann/pets/pets/1.png"], ["cat/1.png", "pets/1.png"]),
    ("/media/ann/labels.csv", None, ["/media/ann/pics/1.png", "pics/1.png"], ["pics/1.png", "pics/1.png"]),
    ("/media/ann/labels.csv", "/media/pics", ["/media/pics/a/1.png"], ["a/1.png"]),
    ("/media/ann/tables/labels.csv", None, ["/media/ann/pics/cat/1.png", "/media/ann/pics/dog/2.png"],
     ["cat/1.png", "dog/2.png"]),
    ("/media/ann/tables/labels.csv", None, ["/media/ann/pics/1.png", "tables/2.png"], ["1.png", "2.png"]),
    ("digits", None, ["digits test[3]"], ["digits test[3]"]),
])  # fmt: skip
def test_names_are_relative_to_the_data_folder(
    run: Run, source: str, root: str | None, paths: list[str], names: list[str]
) -> None:
    config = replace(read_config(RunFolder(run.path).config).data, source=source, root=root)
    assert relative_names(paths, config) == names
