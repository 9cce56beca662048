import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from vitreous.file_locks import locked_file, try_lock

pytest.importorskip("fcntl", reason="needs a system with flock")


def test_second_lock_waits_until_the_first_is_released(tmp_path: Path) -> None:
    order, entered = list[str](), Event()

    def second() -> None:
        entered.set()
        with locked_file(tmp_path / "lock"):
            order.append("second")

    with locked_file(tmp_path / "lock") as is_locked:
        assert is_locked
        thread = Thread(target=second)
        thread.start()
        entered.wait()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked_file(tmp_path / "lock"):
        raise KeyError
    with locked_file(tmp_path / "lock") as is_locked:
        assert is_locked


def test_shared_locks_coexist_and_exclude_an_exclusive_one(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with (tmp_path / "x").open("rb") as one, (tmp_path / "x").open("rb") as two, (tmp_path / "x").open("rb") as three:
        assert try_lock(one, shared=True) is True
        assert try_lock(two, shared=True) is True
        assert try_lock(three) is False


def test_without_lock_support_nothing_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locked_file(tmp_path / "lock") as one, locked_file(tmp_path / "lock") as two:
        assert (one, two) == (False, False)
