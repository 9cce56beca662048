"""The notes that processes of a launch leave for each other; real launches are tested in test_distributed."""

from pathlib import Path

import pytest

from vitreous.errors import ConfigError, SaveError
from vitreous.training.machine import launch as room


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITREOUS_LAUNCH", str(tmp_path))
    monkeypatch.setattr(room.os, "setpgrp", lambda: None)
    return tmp_path


def test_error_of_one_process_ends_all_processes_after_the_restart(notes: Path) -> None:
    def fail() -> None:
        raise SaveError("/full: could not be written (größer als der Platz); free some space")

    with pytest.raises(SaveError):
        room._work(fail)
    outcome = room._work(lambda: pytest.fail("work must not run again"))
    assert type(outcome) is SaveError
    assert str(outcome) == "/full: could not be written (größer als der Platz); free some space"


def test_error_that_all_processes_raise_is_returned_without_a_note(notes: Path) -> None:
    shared = ConfigError("train.epochs=0: must be in (0, inf); 20 is a start")
    shared.is_shared = True

    def fail() -> None:
        raise shared

    assert room._work(fail) is shared
    assert list(notes.iterdir()) == []


def test_group_that_was_stopped_does_not_work_after_a_restart(notes: Path) -> None:
    (notes / "stop").touch()
    assert isinstance(room._work(lambda: pytest.fail("work must not run after a stop")), KeyboardInterrupt)


def test_only_the_first_folder_is_noted(notes: Path) -> None:
    room.note_run(notes / "series")
    room.note_run(notes / "series" / "fold-0")
    assert (notes / "run").read_text(encoding="utf-8") == str(notes / "series")
