import errno
import os
import stat
from pathlib import Path

import pytest

from vitreous import atomic
from vitreous.errors import SaveError


def test_text_and_bytes_are_written_and_no_other_file_is_left(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "ä b.txt", "Ü\n")
    atomic.write_bytes(tmp_path / "raw", b"\x00\xff")
    assert (tmp_path / "ä b.txt").read_bytes() == "Ü\n".encode()
    assert (tmp_path / "raw").read_bytes() == b"\x00\xff"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw", "ä b.txt"]


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    atomic.write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(SaveError) as caught:
        atomic.write(path, half)
    assert str(caught.value) == (
        f"{path}: could not be written (No space left on device); free some space or choose another folder"
    )
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    atomic.write_text(path, "old")

    def interrupt(temporary: Path) -> None:
        temporary.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.write(path, interrupt)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_flushed_as_windows_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl, flushed = pytest.importorskip("fcntl", reason="Windows tests this anyway"), list[int]()

    def fsync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode) and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert len(flushed) == 2  # the file and its folder


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=r"could not be written \(No such file or directory\)"):
        atomic.write_text(tmp_path / "gone" / "file", "x")


def test_folder_is_created_with_its_parents_unless_they_must_exist(tmp_path: Path) -> None:
    for _ in range(2):
        atomic.create_folder(tmp_path / "a" / "b")
        atomic.create_folder(tmp_path / "a" / "c", parents=False)
    with pytest.raises(FileExistsError):
        atomic.create_folder(tmp_path / "a", is_new=True)
    with pytest.raises(SaveError, match=r"/no/d: cannot be created \(No such file or directory\); choose another"):
        atomic.create_folder(tmp_path / "no" / "d", parents=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c"]


def test_folder_in_the_place_of_a_file_is_a_save_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "x", "Not a directory")):
        with pytest.raises(SaveError) as caught:
            atomic.create_folder(path)
        assert str(caught.value) == f"{path}: cannot be created ({reason}); choose another folder"


@pytest.mark.skipif(os.name == "nt", reason="Windows allows longer names")
@pytest.mark.parametrize("letter", ["a", "ä", "🙂"])
def test_longest_names_are_written(letter: str, tmp_path: Path) -> None:
    name = letter * (255 // len(letter.encode()))
    atomic.write_text(tmp_path / name, "x")
    atomic.write_folder(tmp_path / f"-{name[1:]}", lambda folder: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"-{name[1:]}"])


def test_umask_of_the_process_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "umask")  # while it is changed, other threads create files that everyone may write
    atomic.write_text(tmp_path / "file", "x")
    atomic.write_folder(tmp_path / "folder", lambda folder: None)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_permissions_are_those_of_other_new_files(tmp_path: Path) -> None:
    def replace(temporary: Path) -> None:
        (tmp_path / "private").touch(mode=0o600)
        (tmp_path / "private").replace(temporary)

    (tmp_path / "ordinary").write_text("x")
    atomic.write_text(tmp_path / "atomic", "x")
    atomic.write(tmp_path / "replaced", replace)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_folder_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "ä b"

    def half(folder: Path) -> None:
        (folder / "one").write_bytes(b"1")
        raise OSError(28, "No space left on device")

    with pytest.raises(SaveError) as caught:
        atomic.write_folder(path, half)
    assert str(caught.value) == (
        f"{path}: could not be written (No space left on device); free some space or choose another folder"
    )
    assert list(tmp_path.iterdir()) == []

    def whole(folder: Path) -> None:
        assert not path.exists()
        (folder / "one").write_bytes(b"1")

    atomic.write_folder(path, whole)
    assert [entry.name for entry in tmp_path.rglob("*")] == ["ä b", "one"]


def test_interrupted_write_keeps_an_empty_folder(tmp_path: Path) -> None:
    def interrupt(folder: Path) -> None:
        (folder / "one").write_bytes(b"1")
        raise KeyboardInterrupt

    (tmp_path / "empty").mkdir()
    with pytest.raises(KeyboardInterrupt):
        atomic.write_folder(tmp_path / "empty", interrupt)
    assert [entry.name for entry in tmp_path.rglob("*")] == ["empty"]


def test_permissions_are_those_of_other_new_folders(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    atomic.write_folder(tmp_path / "folder", lambda folder: None)
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "plain").stat().st_mode
