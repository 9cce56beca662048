"""A run -> a check of its held-out images, stored in the run folder and shown in its report."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitreous.cli.look.explain import show_shortcuts
from vitreous.errors import DamagedFileError, NotARunError, UnknownNameError
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.explain import shortcuts
from vitreous.use.explain.shortcut_check import check_shortcuts, write_shortcuts
from vitreous.use.explain.shortcuts import Shortcut, Shortcuts
from vitreous.use.predict.predictor import Predictor
from vitreous.use.report.page import write_report
from vitreous.use.run import Run

SHORTCUT = Shortcut("<i>&", "upper edge", (0, 0, 1, 0.1), 0.1, (2, 0), 3, 0.001)


def test_places_of_images_are_exchanged_and_those_that_move_predictions_are_found(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prediction is made to depend on one pixel."""
    seen: set[str] = set()

    def logits(predictor: Predictor, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(pixels[:, 0, 0, -1].long() % 3, 3).float()

    monkeypatch.setattr(Predictor, "logits", logits)
    monkeypatch.setattr(shortcuts, "MIN_SIDE", 1)
    check = check_shortcuts(run.path, str(photos), listener=lambda kind, record: seen.add(record.get("what", kind)))
    assert seen >= {"exchanging places", "explaining"}
    assert check.shortcuts.num_checked == len(check.shortcuts.found) == 3
    for found in check.shortcuts.found:
        assert (found.place, found.followed) == ("upper right corner", 1.0)


def test_the_number_of_images_is_limited_and_always_the_same_ones_are_chosen(run: Run) -> None:
    first, second = (check_shortcuts(run.path, max_images=7).images for _ in range(2))
    assert len(set(first)) == 7
    assert first == second


def test_other_data_can_be_checked(run: Run, photos: Path) -> None:
    check = check_shortcuts(run.path, str(photos), max_images=9)
    assert check.data == "all of my photos"
    assert check.sentences[-1] == f"shortcuts: examined 9 images of all of my photos, explained by {check.method}"


def test_an_unknown_method_and_a_file_without_images_are_refused(run: Run, lone_model: Path) -> None:
    with pytest.raises(UnknownNameError, match="method=gradient-atention: no such method"):
        check_shortcuts(run.path, method="gradient-atention")
    with pytest.raises(NotARunError, match="does not record its test images"):
        check_shortcuts(lone_model)


def test_the_report_shows_what_was_found_and_which_images(own_run: Run) -> None:
    folder = RunFolder(own_run.path)
    write_report(folder)
    before = folder.report.read_text("utf-8")
    assert "This has not been checked." in before
    check = check_shortcuts(own_run.path)
    found = replace(check, shortcuts=Shortcuts((SHORTCUT,), 3, ()))
    write_shortcuts(folder, found)
    write_report(folder)
    page = folder.report.read_text("utf-8")
    assert "Does the model look at the object?" in page
    assert "class &lt;i&gt;&amp;: when the upper edge (10% of the area)" in page
    stored = json.loads(folder.shortcuts.read_text("utf-8"))
    assert stored["found"][0]["images"] == [check.images[2], check.images[0]]
    assert stored["found"][0]["followed"] == 2 / 3
    assert stored["sentences"] == list(found.sentences)


@pytest.mark.parametrize("content", ["", "[]", '{"found": []}', '{"sentences": 5}', "\udcff"])
def test_a_damaged_file_is_named_with_what_to_do(own_run: Run, content: str) -> None:
    folder = RunFolder(own_run.path)
    folder.shortcuts.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DamagedFileError, match=r"shortcuts\.json.*remove the file, or check for shortcuts again"):
        write_report(folder)


def test_the_screen_says_what_was_found_and_the_report_is_updated(
    own_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    show_shortcuts(own_run.path, device="cpu", as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(RunFolder(own_run.path).shortcuts.read_text("utf-8"))
    assert "Does the model look at the object?" in RunFolder(own_run.path).report.read_text("utf-8")
    show_shortcuts(own_run.path, device="cpu")
    lines = " ".join(capsys.readouterr().out.split())
    assert all(" ".join(sentence.split()) in lines for sentence in printed["sentences"])
