"""Runs on corrected data: the file is copied into the run, and only the copy counts from then on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.unit.training.killed import interrupted

from vitreous.data.corrections import write_corrections
from vitreous.errors import DataError, RunError
from vitreous.model.weights import load_model, read_metadata
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.series import run_series
from vitreous.training.start import dry_run, run_training
from vitreous.use.evaluate.evaluator import evaluate

Tiny = Callable[..., TrainRequest]
ROWS = [
    ("apple/03.png", "apple", "relabel", "kiwi", "", ""),
    ("kiwi/05.png", "kiwi", "drop", "", "", ""),
    ("plum/00.png", "plum", "split:train", "", "", ""),
]


@pytest.fixture
def fix(tmp_path: Path) -> Path:
    path = tmp_path / "fix.csv"
    write_corrections(path, ROWS)
    return path


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_model(run.model).state_dict()


def test_run_keeps_a_copy_and_resumes_from_it_although_the_file_was_edited(tiny: Tiny, fix: Path) -> None:
    whole = run_training(tiny("whole", data__corrections=str(fix)))
    run = interrupted(tiny(data__corrections=str(fix)))
    write_corrections(fix, ROWS[1:])
    run_training(TrainRequest(resume=run.path))
    torch.testing.assert_close(weights(run), weights(whole), rtol=0, atol=0)
    assert run.corrections.read_bytes() == whole.corrections.read_bytes()
    assert read_config(run.config).data.corrections == str(run.corrections)


def test_corrections_change_the_data_of_a_run(tiny: Tiny, fix: Path) -> None:
    plain, fixed = run_training(tiny("plain")), run_training(tiny("fixed", data__corrections=str(fix)))
    assert read_metadata(plain.model)["data_fingerprint"] != read_metadata(fixed.model)["data_fingerprint"]
    assert not plain.corrections.exists()
    assert read_config(plain.config).data.corrections is None
    assert any("fix.csv is applied: 3 rows" in line for line in fixed.plan.read_text().splitlines())


def test_edited_copy_is_refused(tiny: Tiny, fix: Path) -> None:
    run = interrupted(tiny(data__corrections=str(fix)))
    write_corrections(run.corrections, ROWS[:2])
    with pytest.raises(
        RunError, match=r"its data has changed since the run started \(fingerprint .*/corrections.csv, or start"
    ):
        run_training(TrainRequest(resume=run.path))
    run.corrections.unlink()
    with pytest.raises(DataError, match=r"^data.corrections=.*run/corrections.csv: cannot be read"):
        run_training(TrainRequest(resume=run.path))


def test_configuration_of_a_run_repeats_it(tiny: Tiny, fix: Path, tmp_path: Path) -> None:
    run = run_training(tiny(data__corrections=str(fix)))
    fix.unlink()
    again = run_training(TrainRequest(recipe=str(run.config), out=tmp_path / "again"))
    torch.testing.assert_close(weights(again), weights(run), rtol=0, atol=0)
    assert again.corrections.read_bytes() == run.corrections.read_bytes()


def test_run_folder_that_moved_still_has_its_corrections(tiny: Tiny, fix: Path, tmp_path: Path) -> None:
    run = run_training(tiny(data__corrections=str(fix)))
    before = evaluate(run.path)
    fix.unlink()
    moved = run.path.rename(tmp_path / "elsewhere")
    assert evaluate(moved).accuracy == before.accuracy


def test_data_that_moved_is_corrected_at_its_new_place(tiny: Tiny, fix: Path, own_images: Path, tmp_path: Path) -> None:
    whole = run_training(tiny("whole", data=own_images, data__corrections=str(fix)))
    run = interrupted(tiny(data=own_images, data__corrections=str(fix)))
    moved = own_images.rename(tmp_path / "moved")
    run_training(TrainRequest(resume=run.path, data=str(moved)))
    torch.testing.assert_close(weights(run), weights(whole), rtol=0, atol=0)


def test_all_folds_use_the_corrections_of_the_first_one(tiny: Tiny, fix: Path, tmp_path: Path) -> None:
    def edit(run: RunFolder) -> None:
        write_corrections(fix, ROWS[:1])

    request = replace(tiny("series", data__corrections=str(fix), train__epochs=0.3), folds=2)
    folder = run_series(request, edit)
    first, second = (RunFolder(folder.path / f"fold-{number}") for number in (0, 1))
    assert first.corrections.read_bytes() == second.corrections.read_bytes()
    assert len(first.corrections.read_text().splitlines()) == 4


def test_wrong_file_leaves_no_folder_behind(tiny: Tiny, fix: Path, tmp_path: Path) -> None:
    write_corrections(fix, [("apple/99.png", "apple", "drop", "", "", "")])
    for start in (run_training, dry_run):
        with pytest.raises(DataError, match=r"line 2: path=apple/99.png: not in the data; did you mean apple/"):
            start(tiny(data__corrections=str(fix)))
    assert not (tmp_path / "run").exists()
