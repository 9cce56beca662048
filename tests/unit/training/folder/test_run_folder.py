import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitreous.errors import NotARunError, RunError, SaveError
from vitreous.training.folder.access import check_free, create_run_folder, exclusive, open_run_folder, sweep
from vitreous.training.folder.records import ignore
from vitreous.training.folder.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_numbers_increase_and_gaps_are_not_filled() -> None:
    assert create_run_folder(None, "digits").path == Path("runs/digits-1")
    assert create_run_folder(None, "digits").path == Path("runs/digits-2")
    Path("runs/digits-12").mkdir()
    assert create_run_folder(None, "digits").path == Path("runs/digits-13")


def test_similar_names_are_not_counted() -> None:
    for name in ("digits-old", "digits-5-old", "other-7", "digits-3-4", "digits-"):
        Path("runs", name).mkdir(parents=True)
    Path("runs/digits-2.txt").touch()
    assert create_run_folder(None, "digits").path == Path("runs/digits-1")


@pytest.mark.parametrize(
    ("name", "folder"),
    [("my photos", "my-photos-1"), ("..", "run-1"), ("a/b", "a-b-1"), ("größe", "größe-1"), ("x-7", "x-7-1"),
     ("caf\udce9", "caf-1")],
)  # fmt: skip
def test_folder_is_named_after_the_data(name: str, folder: str) -> None:
    assert create_run_folder(None, name).path == Path("runs", folder)


def test_two_runs_that_start_at_the_same_time_get_different_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def beaten(path: Path, *args: object, **options: object) -> None:
        if path.name == "digits-1" and not path.exists():
            mkdir(path)  # the other run, which is a moment earlier
        mkdir(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", beaten)
    assert create_run_folder(None, "digits").path == Path("runs/digits-2")


def test_two_runs_that_request_the_same_folder_at_the_same_time_do_not_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mkdir = Path.mkdir

    def beaten(path: Path, *args: object, **options: object) -> None:
        if path.name == "checkpoints" and not path.exists():
            mkdir(path)
        mkdir(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", beaten)
    with pytest.raises(RunError) as caught:
        create_run_folder(Path("mine"), "digits")
    assert str(caught.value) == "out=mine: another run just started there; choose another folder"


def test_requested_folder_is_created_with_its_parents() -> None:
    folder = create_run_folder(Path("a/b/c"), "digits")
    assert folder.path == Path("a/b/c")
    assert folder.checkpoints.is_dir()


def test_empty_folder_can_be_used() -> None:
    Path("mine").mkdir()
    assert create_run_folder(Path("mine"), "digits").path == Path("mine")


def test_folder_that_is_not_empty_is_refused_and_not_changed() -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("all of it")
    with pytest.raises(RunError) as caught:
        create_run_folder(Path("mine"), "digits")
    assert str(caught.value) == "out=mine: exists and is not empty; choose another folder"
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.txt"]


def test_folder_with_a_run_suggests_to_resume() -> None:
    Path("mine").mkdir()
    Path("mine/config.yaml").touch()
    with pytest.raises(RunError) as caught:
        check_free(Path("mine"))
    assert str(caught.value) == (
        "out=mine: exists and is not empty; continue it with --resume mine, or choose another folder"
    )


def test_path_of_a_file_is_an_error() -> None:
    Path("mine").touch()
    with pytest.raises(RunError, match=r"^out=mine: exists and is not empty; choose another folder$"):
        check_free(Path("mine"))
    with pytest.raises(SaveError) as caught:
        create_run_folder(Path("mine/below"), "digits")
    assert str(caught.value) == "mine/below: cannot be created (Not a directory); choose another folder"


def test_name_that_is_too_long_is_an_error() -> None:
    with pytest.raises(SaveError, match=r"cannot be created \(File name too long\); choose another folder$"):
        create_run_folder(None, "x" * 300)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root can write everywhere")
def test_folder_without_write_permission_is_an_error() -> None:
    Path("locked").mkdir(mode=0o500)
    with pytest.raises(SaveError, match=r"^locked/mine: cannot be created \(Permission denied\)"):
        create_run_folder(Path("locked/mine"), "digits")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gone", "does not exist"),
        ("file", "is a file, not a run folder"),
        ("empty", "is a folder without config.yaml, not a run folder"),
    ],
)
def test_error_about_another_path_says_what_it_is(name: str, problem: str) -> None:
    Path("file").touch()
    Path("empty").mkdir()
    with pytest.raises(NotARunError) as caught:
        open_run_folder(Path(name))
    assert str(caught.value) == f"run={name}: {problem}; create one with `vitreous train DATA`"


def test_error_about_another_path_lists_existing_runs() -> None:
    for name in ("digits-1", "digits-2"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "config.yaml").touch()
    with pytest.raises(NotARunError, match=r"^run=digits-1: does not exist; use one of runs/digits-1, runs/digits-2$"):
        open_run_folder(Path("digits-1"))
    assert open_run_folder(Path("runs/digits-2")) == RunFolder(Path("runs/digits-2"))


def test_sweep_removes_only_the_temporary_files_of_a_killed_process() -> None:
    folder = create_run_folder(Path("mine"), "digits")
    kept = [folder.config, folder.path / "notes.tmp", folder.checkpoints / "step-000000003.safetensors"]
    unfinished = [folder.path / ".model.safetensors.x1.tmp", folder.checkpoints / ".step-000000004.safetensors.y2.tmp"]
    for path in [*kept, *unfinished]:
        path.touch()
    sweep(folder)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in unfinished)


def test_folder_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from vitreous.training.folder.access import exclusive\n"
        "with exclusive(Path(sys.argv[1]), print): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError) as caught, exclusive(tmp_path, ignore):
            pass
        assert str(caught.value).startswith(f"run={tmp_path}: another process is training it; wait until it ends")
        other.kill()
    with exclusive(tmp_path, ignore):
        pass


def test_folder_that_cannot_be_locked_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    events = []
    with exclusive(tmp_path, lambda kind, fields: events.append((kind, dict(fields)))):
        pass
    assert events == [("unlocked", {"run": str(tmp_path)})]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such paths")
def test_path_that_is_not_utf_8_is_refused_because_checkpoints_could_not_be_read(tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(RunError, match=r"^out=.*/caf\\xe9: is not valid UTF-8; choose another folder$"):
        create_run_folder(out, "photos")
    assert not out.exists()
    assert create_run_folder(tmp_path / "café", "photos").checkpoints.is_dir()
