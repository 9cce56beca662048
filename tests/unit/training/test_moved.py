"""Runs and series whose data has moved: they continue bit for bit if the content is the same, else they are refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.unit.training.killed import interrupted

import vitreous as vt
from vitreous.data.sources import open_object
from vitreous.errors import ConfigError, DataNotFoundError, RunError
from vitreous.model.weights import load_model
from vitreous.recipe.files import read_config
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.series import run_series
from vitreous.training.start import run_training
from vitreous.use.evaluate.evaluator import evaluate

Tiny = Callable[..., TrainRequest]


def assert_same_weights(one: RunFolder, other: RunFolder) -> None:
    first, second = (load_model(run.model).state_dict() for run in (one, other))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_run_continues_bit_for_bit_at_the_new_place_of_its_data(tiny: Tiny, own_images: Path, tmp_path: Path) -> None:
    whole = run_training(tiny("whole", data=own_images))
    run = interrupted(tiny(data=own_images))
    moved = own_images.rename(tmp_path / "elsewhere")
    heard: list[str] = []
    run_training(TrainRequest(resume=run.path, data=str(moved)), lambda kind, fields: heard.append(kind))
    assert "moved" in heard
    assert_same_weights(run, whole)
    assert read_config(run.config).data.source == str(moved)
    (record,) = (record for record in read_records(run.records) if record["kind"] == "moved")
    assert (record["from"], record["to"]) == (str(own_images), str(moved))


def test_renamed_files_at_the_new_place_are_the_same_content(tiny: Tiny, own_images: Path, tmp_path: Path) -> None:
    run = interrupted(tiny(data=own_images))
    (own_images / "kiwi" / "03.png").rename(own_images / "kiwi" / "holiday.png")
    moved = own_images.rename(tmp_path / "elsewhere")
    assert run_training(TrainRequest(resume=run.path, data=str(moved))).model.is_file()


@pytest.mark.parametrize("change", ["removed", "replaced", "class renamed"])
def test_other_content_is_refused_and_the_run_stays_as_it_was(
    tiny: Tiny, own_images: Path, tmp_path: Path, change: str
) -> None:
    run = interrupted(tiny(data=own_images))
    before = run.config.read_text()
    moved = own_images.rename(tmp_path / "elsewhere")
    if change == "removed":
        (moved / "plum" / "00.png").unlink()
    elif change == "replaced":
        Image.new("RGB", (14, 9), "white").save(moved / "plum" / "00.png")
    else:
        (moved / "plum").rename(moved / "prune")
    with pytest.raises(RunError) as caught:
        run_training(TrainRequest(resume=run.path, data=str(moved)))
    message = str(caught.value)
    assert message.endswith("; give the data that it started with, or start a new run")
    if change == "class renamed":
        assert "its data has changed since the run started (new classes: prune; missing classes: plum)" in message
    assert run.config.read_text() == before


def test_renamed_class_is_refused_at_the_old_place_too(tiny: Tiny, own_images: Path) -> None:
    run = interrupted(tiny(data=own_images))
    (own_images / "plum").rename(own_images / "prune")
    with pytest.raises(
        RunError, match=rf"\(new classes: prune; missing classes: plum\); restore {own_images}, or start a new run$"
    ):
        run_training(TrainRequest(resume=run.path))


@pytest.mark.parametrize("is_finished", [False, True])
def test_advice_of_the_error_works(tiny: Tiny, own_images: Path, tmp_path: Path, is_finished: bool) -> None:
    run = run_training(tiny(data=own_images)) if is_finished else interrupted(tiny(data=own_images))
    moved = own_images.rename(tmp_path / "elsewhere")
    with pytest.raises(DataNotFoundError) as caught:
        evaluate(run.path) if is_finished else run_training(TrainRequest(resume=run.path))
    assert str(caught.value) == (
        f"data.source={own_images}: is no longer there; restore it, or give its new place: "
        f"`vitreous train --resume {run.path} --data NEW`"
    )
    run_training(TrainRequest(resume=run.path, data=str(moved)))
    assert evaluate(run.path).data == "elsewhere, test split"


def test_finished_run_is_not_trained_again_when_its_data_moves(tiny: Tiny, own_images: Path, tmp_path: Path) -> None:
    run = run_training(tiny(data=own_images))
    model, moved = run.model.read_bytes(), own_images.rename(tmp_path / "elsewhere")
    assert vt.train(moved, resume=run.path).path == run.path
    assert read_config(run.config).data.source == str(moved)
    assert run.model.read_bytes() == model


def table_of(images: Path, path: Path) -> Path:
    rows = [f"{image.relative_to(images)},{image.parent.name}" for image in sorted(images.glob("*/*.png"))]
    path.write_text("\n".join(["path,label", *rows]) + "\n")
    return path


def test_root_of_a_table_can_move(tiny: Tiny, own_images: Path, tmp_path: Path) -> None:
    table = table_of(own_images, tmp_path / "labels.csv")
    run = interrupted(tiny(data=table, data__root=str(own_images)))
    moved = own_images.rename(tmp_path / "elsewhere")
    run_training(TrainRequest(resume=run.path, values={"data.root": str(moved)}))
    data = read_config(run.config).data
    assert (data.source, data.root) == (str(table), str(moved))


def test_data_from_python_is_no_new_place_of_a_folder(tiny: Tiny, own_images: Path) -> None:
    run = interrupted(tiny(data=own_images))
    pairs = [(Image.new("RGB", (14, 9), (i, 0, 0)), f"class {i % 2}") for i in range(20)]
    with pytest.raises(
        ConfigError, match=r"reads its data from .*fruit, not from Python; give no data with resume, or"
    ):
        run_training(TrainRequest(resume=run.path, source=open_object(pairs)))


def test_run_of_an_older_version_is_checked_by_its_record_of_the_data(
    tiny: Tiny, own_images: Path, tmp_path: Path
) -> None:
    run = interrupted(tiny(data=own_images))
    start, *others = run.records.read_text().splitlines()
    old = {key: value for key, value in json.loads(start).items() if key not in ("classes", "fingerprint")}
    run.records.write_text("\n".join([json.dumps(old), *others]) + "\n")
    moved = own_images.rename(tmp_path / "elsewhere")
    (moved / "plum" / "00.png").unlink()
    with pytest.raises(RunError, match="its data has changed since the run started"):
        run_training(TrainRequest(resume=run.path, data=str(moved)))


def test_series_continues_at_the_new_place_of_its_data(tiny: Tiny, own_images: Path, tmp_path: Path) -> None:
    request = replace(tiny("series", data=own_images, train__epochs=0.5), folds=2)

    def kill(kind: str, fields: Any) -> None:
        if kind == "member" and fields["number"] == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_series(request, lambda run: None, kill)
    moved = Path(shutil.move(own_images, tmp_path / "elsewhere"))
    folder = run_series(TrainRequest(resume=request.out, data=str(moved)), lambda run: None)
    sources = {read_config(RunFolder(folder.path / name).config).data.source for name in ("fold-0", "fold-1")}
    assert sources == {str(moved)}
    assert json.loads(folder.series.read_text())["data"] == str(moved)
    (moved / "plum" / "00.png").unlink()
    with pytest.raises(RunError, match=r"fold-0: its data has changed .*; restore "):
        run_series(TrainRequest(resume=request.out, data=str(moved)), lambda run: None)
