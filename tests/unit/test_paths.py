"""Paths as users give them."""

import warnings
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from vitreous.errors import ConfigError
from vitreous.paths import as_path, expanded, portable


def test_home_folder_is_filled_in_and_an_unknown_user_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home-of-a-test")
    assert expanded("~/run") == Path("/home-of-a-test/run")
    assert expanded(Path("~no-such-user/run")) == Path("~no-such-user/run")
    assert as_path("out", "~/run") == Path("/home-of-a-test/run")


@pytest.mark.parametrize(
    ("got", "shown"),
    [
        (None, "None"),
        (7, "7"),
        (b"run", "b'run'"),
        ("", "''"),
        ("  ", "'  '"),
        ("a\0b", r"'a\x00b'"),
        ("\ud800", r"'\ud800'"),
        (["run"], "['run']"),
        (object(), "<object>"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isprintable() else type(value).__name__,
)
def test_what_cannot_be_a_path_is_refused(got: Any, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        as_path("out", got)
    assert str(caught.value) == f"out={shown}: is not a path; give the path of a file or folder"


def test_name_longer_than_a_file_system_allows_is_refused() -> None:
    as_path("out", "x" * 255)
    with pytest.raises(ConfigError, match=r"^out='x+\.\.\.x+': is not a path"):
        as_path("out", "x" * 256)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("con", "con_"), ("NUL", "NUL_"), ("com1", "com1_"), ("LPT9", "LPT9_"), ("aux.tar.gz", "aux_.tar.gz"),
        ("con .x", "con _.x"), ("CONIN$", "CONIN$_"), ("com¹", "com¹_"),
        ("cones", "cones"), ("con-1", "con-1"), ("my con", "my con"), ("com", "com"), ("x.con", "x.con"), ("", ""),
    ],
)  # fmt: skip
def test_names_that_windows_reserves_for_devices_are_changed(name: str, written: str) -> None:
    assert portable(name) == written
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer versions of Python say os.path.isreserved instead
        assert PureWindowsPath(name).is_reserved() == (name != written)
        assert not PureWindowsPath(written).is_reserved()
