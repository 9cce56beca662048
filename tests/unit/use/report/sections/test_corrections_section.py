"""The sections on corrections and on groups of images: what they show, and what they advise instead."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit.use.report.thumbnails import Thumbnails

from vitreous.data.corrections import write_corrections
from vitreous.errors import DamagedFileError
from vitreous.model.weights import read_metadata
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.images.slices import Slice
from vitreous.use.evaluate.outputs import Outputs, outputs_of_run
from vitreous.use.predict.table import read_held_out
from vitreous.use.report.photos import Pictures
from vitreous.use.report.section import ReportInput
from vitreous.use.report.sections.corrections import corrections_section
from vitreous.use.report.sections.slices import slices_section
from vitreous.use.run import Run
from vitreous.use.series.compare import compare

MakeRun = Callable[..., Run]


def read(run: Run, pictures: Pictures | None = None) -> ReportInput:
    folder = RunFolder(run.path)
    config, metadata = read_config(folder.config), read_metadata(folder.model)
    return ReportInput(folder, config, metadata, [], None, outputs_of_run(folder), pictures)


@pytest.mark.parametrize("wrong", [[], [4, 9]])
def test_run_with_doubtful_labels_is_advised_to_check_them(run: Run, wrong: list[int]) -> None:
    true = np.arange(60) % 3
    logits = torch.from_numpy(8 * np.eye(3, dtype=np.float32)[true])
    true[wrong] = (true[wrong] + 1) % 3
    outputs = Outputs("the test images of photos", run.classes, logits, torch.from_numpy(true))
    section = corrections_section(replace(read(run), outputs={"test": outputs}))
    if not wrong:
        assert section is None
        return
    assert section is not None
    (advice,) = section.advice
    assert advice.text == "Check the labels: 2 of 60 images may be mislabeled."
    assert advice.command == f"vitreous inspect {quote(str(run.path))} --fix corrections.csv"
    assert advice.gain == pytest.approx(2 / 60)


def test_run_without_held_out_images_has_neither_section(blind_run: Run) -> None:
    assert corrections_section(read(blind_run)) is None
    assert slices_section(read(blind_run)) is None


@pytest.fixture(scope="module")
def fixed(run_on: MakeRun, run: Run, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that started from the other one, with two relabeled test images, a dropped one and merged classes."""
    file = tmp_path_factory.mktemp("fix") / "fix.csv"
    rows = [row for row in read_held_out(run.path / "predictions.csv") if row.true != "two words"][:3]
    keys = [Path(row.path).relative_to(photos).as_posix() for row in rows]
    changes = [("relabel", "two words"), ("relabel", "two words"), ("drop", "")]
    merge = ("", "Äpfel", "merge", "two words", "", "")
    cells = zip(keys, rows, changes, strict=True)
    write_corrections(file, [merge, *((key, row.true, action, to, "", "") for key, row, (action, to) in cells)])
    return run_on(photos, name="fixed", **{"data.corrections": str(file), "train.pretrained": str(run.path)})


def test_effect_is_that_of_the_comparison_with_the_earlier_run(fixed: Run, run: Run) -> None:
    section = corrections_section(read(fixed))
    found = compare(run.path, fixed.path)
    assert section is not None
    assert section.advice == ()
    assert section.numbers["difference"] == pytest.approx(found.difference)
    assert section.numbers["interval_95"] == pytest.approx(found.interval_95)
    assert section.numbers["rows"] == {"merge": 1, "relabel": 2, "drop": 1}
    images = f"{found.num_images} test images of {run.path}"
    assert f"{images}, with the corrected labels: {100 * found.difference:+.1f} points" in section.parts[0]


def test_comparison_gives_both_sides_the_corrected_labels(fixed: Run, run: Run) -> None:
    before = {row.path: row for row in read_held_out(run.path / "predictions.csv")}
    after = read_held_out(fixed.path / "predictions.csv")
    merged = {"Äpfel": "two words"}
    pairs = [(merged.get(before[row.path].predicted, before[row.path].predicted) == row.true, row.predicted == row.true)
             for row in after if row.path in before]  # fmt: skip
    for found, order in ((compare(run.path, fixed.path), (0, 1)), (compare(fixed.path, run.path), (1, 0))):
        assert found.num_images == len(pairs)
        np.testing.assert_allclose((found.accuracy_a, found.accuracy_b), np.mean(pairs, axis=0)[list(order)])


def test_without_an_earlier_run_the_section_advises_to_compare(
    run_on: MakeRun, run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fix.csv"
    write_corrections(file, [("two words/bild 3 ü.png", "two words", "keep", "", "", "")])
    kept = run_on(photos, name="kept", **{"data.corrections": str(file), "train.epochs": 0.3})
    monkeypatch.chdir(run.path)  # a run in the current folder is not the earlier one
    section = corrections_section(read(kept))
    assert section is not None
    assert section.advice[0].command.startswith("vitreous compare OLD ")
    assert "keep: 1 row" in section.parts[0]


def test_groups_that_are_worse_are_shown_with_pictures_and_advice(own_run: Run) -> None:
    groups = [
        Slice('camera <b>&"', 25, 0.4, (0.2, 0.6), 0.9, 0.001, (3, 5)),
        Slice("folder x", 30, 0.9, (0.8, 1.0), 0.8, 0.9, ()),
    ]
    (own_run.path / "slices.json").write_text(json.dumps([group._asdict() for group in groups]))
    asked: list[tuple[int, ...]] = []

    def photos(numbers: Sequence[int], side_px: int) -> list[Image.Image | None]:
        asked.append(tuple(numbers))
        return [Image.new("RGB", (4, 4)), None]

    section = slices_section(read(own_run, Thumbnails(photos)))
    assert section is not None
    assert asked == [(3, 5)]
    (part,) = section.parts
    assert part.startswith(
        "<p>camera &lt;b&gt;&amp;&quot;: 40.0% of 25 images correct (95% interval 20.0% to 60.0%), 90.0% of "
    )
    assert part.count("<img ") == 1
    (advice,) = section.advice
    assert advice.gain == pytest.approx(25 * 0.5 / own_run.metrics["test"]["num_images"])
    assert json.loads(json.dumps(section.numbers))["groups"][1]["name"] == "folder x"


def test_without_stored_groups_the_section_advises_to_look_for_them(run: Run, own_run: Run) -> None:
    section = slices_section(read(run))
    assert section is not None
    assert section.parts == ()
    assert section.advice[0].command == f"vitreous evaluate {quote(str(run.path))} --slices"
    (own_run.path / "slices.json").write_text("[]")
    section = slices_section(read(own_run))
    assert section is not None
    assert section.parts == ("<p>No group of images is significantly worse than the others.</p>",)
    (own_run.path / "slices.json").write_text('[{"name": 3}]')
    with pytest.raises(DamagedFileError, match=r"slices.json: .*; delete it, or look for groups again$"):
        slices_section(read(own_run))


def test_sections_do_not_need_the_data(fixed: Run, tmp_path: Path) -> None:
    moved = Run(shutil.copytree(fixed.path, tmp_path / "moved"))
    assert corrections_section(read(moved)) is not None
