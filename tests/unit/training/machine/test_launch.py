"""What processes of a launch tell each other through its notes; the launches themselves are in test_distributed."""

from pathlib import Path

import pytest

from vitreous.errors import ConfigError, SaveError
from vitreous.training.machine import launch as room


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITREOUS_LAUNCH", str(tmp_path))
    monkeypatch.setattr(room.os, "setpgrp", lambda: None)
    return tmp_path


def test_error_of_one_process_alone_ends_all_after_they_are_started_again(notes: Path) -> None:
    def fail() -> None:
        raise SaveError("/full: could not be written (größer als der Platz); free some space")

    with pytest.raises(SaveError):
        room._work(fail)
    outcome = room._work(lambda: pytest.fail("nobody tries again"))
    assert type(outcome) is SaveError
    assert str(outcome) == "/full: could not be written (größer als der Platz); free some space"


def test_error_that_all_processes_met_is_handed_over_at_once(notes: Path) -> None:
    shared = ConfigError("train.epochs=0: must be in (0, inf); 20 is a start")
    shared.is_shared = True

    def fail() -> None:
        raise shared

    assert room._work(fail) is shared
    assert list(notes.iterdir()) == []


def test_group_that_was_asked_to_stop_is_not_started_again(notes: Path) -> None:
    (notes / "stop").touch()
    assert isinstance(room._work(lambda: pytest.fail("it is stopped")), KeyboardInterrupt)


def test_first_folder_that_was_begun_is_the_one_to_go_on_with(notes: Path) -> None:
    room.note_begun(notes / "series")
    room.note_begun(notes / "series" / "fold-0")
    assert (notes / "begun").read_text(encoding="utf-8") == str(notes / "series")
