"""`vitreous` without arguments: commands for what is in the working folder, which work as they are printed."""

import fcntl
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.pictures import write_pictures
from tests.unit.cli.conftest import TINY, Said

Cli = Callable[..., Said]
CLASSES = {"cat": ((200, 60, 50), 12), "dog": ((70, 180, 60), 11)}


def commands(out: str) -> list[list[str]]:
    """Return the words of the commands in an output."""
    lines = [line.removeprefix("  ") for line in out.splitlines() if line.startswith("  vitreous ")]
    return [shlex.split(line.partition("  ")[0]) for line in lines]


def heads(out: str) -> list[str]:
    """Return the subcommands of an output and their first argument."""
    return [" ".join(words[1:3]) for words in commands(out)]


@pytest.mark.parametrize("files", [(), ("runs",)])
def test_empty_folder_gets_first_steps_that_need_no_data(files: tuple[str, ...], tmp_path: Path, cli: Cli) -> None:
    for name in files:
        (tmp_path / name).touch()
    said = cli()
    assert heads(said.out) == ["train digits", "models", "env", "--help"]
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize(
    ("folder", "word"),
    [(".", "."), ("photos", "photos"), ("my photos", "my photos"), ("digits", "./digits"), ("-x", "./-x"),
     ("deep/train", "deep")],
)  # fmt: skip
def test_photos_get_commands_that_open_them(folder: str, word: str, tmp_path: Path, cli: Cli) -> None:
    write_pictures(tmp_path / folder, CLASSES, seed=3, name="{}.png", noise=20)
    said = cli()
    assert f"data: {word} (23 images of 2 classes)" in said.out.splitlines()
    train, with_budget, inspect, _ = commands(said.out)
    assert (train[1:], with_budget[1:]) == (["train", word], ["train", word, "--budget", "10m"])
    assert cli(*train[1:], "--dry-run", *TINY).code == 0
    assert cli(*inspect[1:]).code == 0


def test_table_of_photos_gets_a_train_command_and_other_tables_do_not(tmp_path: Path, cli: Cli) -> None:
    write_pictures(tmp_path / "all", {"x": ((9, 9, 9), 4)}, seed=3, name="{}.png", noise=20)
    rows = [f"all/x/{number}.png,{'ab'[number % 2]}" for number in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    (tmp_path / "prices.csv").write_text("day,price\n1,2\n", encoding="utf-8")
    said = cli()
    assert heads(said.out)[:-1] == ["train labels.csv", "train labels.csv", "inspect labels.csv"]
    assert "prices" not in said.out


def test_loose_photos_get_the_reason_why_they_are_no_data(tmp_path: Path, cli: Cli) -> None:
    write_pictures(tmp_path, {"x": ((9, 9, 9), 4)}, seed=3, name="{}.png", noise=20)
    for photo in (tmp_path / "x").iterdir():
        photo.rename(tmp_path / photo.name)
    (tmp_path / "x").rmdir()
    said = cli()
    assert "no data: data.source=.: 4 images but no class folders; put the images of each class into" in said.out
    assert "train digits" in heads(said.out)


def test_newest_run_gets_commands_that_work_as_printed(run: Path, tmp_path: Path, cli: Cli) -> None:
    for number, name in enumerate(("newer one", "older")):
        copy = Path(shutil.copytree(run, tmp_path / "runs" / name))
        os.utime(copy / "model.safetensors", (1e9 - number, 1e9 - number))
    found = [words for words in commands(cli().out) if words[1] not in ("serve", "--help")]
    assert [words[1:3] for words in found] == [
        [name, "runs/newer one"] for name in ("predict", "explain", "evaluate", "inspect", "report")
    ]
    for words in found:
        said = cli(*words[1:])
        assert (said.code, said.err) == (0, ""), words


def test_run_folder_itself_is_the_newest_run(run: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(run)
    assert heads(cli().out)[:2] == ["predict .", "explain ."]


def test_finished_run_of_a_series_is_found(run: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(run, tmp_path / "runs" / "cv" / "fold-0")
    (tmp_path / "runs" / "cv" / "series.json").write_text("{}", encoding="utf-8")
    assert heads(cli().out)[0] == "predict runs/cv/fold-0"


def test_unfinished_run_is_resumed_unless_it_is_being_trained(unfinished: Path, cli: Cli) -> None:
    assert [["vitreous", "train", "--resume", unfinished.name]] == commands(cli().out)[:1]
    descriptor = os.open(unfinished, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        said = cli()
    finally:
        os.close(descriptor)
    assert f"being trained: {unfinished.name}" in said.out
    assert "--resume" not in said.out


def test_folders_of_other_users_are_passed_over(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    with TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        monkeypatch.chdir(place)
        for name in ("closed", "listed", "runs"):
            write_pictures(Path(place, name), CLASSES, seed=3, name="{}.png", noise=20)
        for name, mode in {"closed": 0, "listed": 0o444, "runs": 0}.items():
            Path(place, name).chmod(mode)
        is_root = os.getuid() == 0  # who may enter every folder
        try:
            if is_root:
                os.setresuid(65534, 65534, 0)
            said = cli()
        finally:
            if is_root:
                os.setresuid(0, 0, 0)
            for folder in Path(place).iterdir():
                folder.chmod(0o755)
            monkeypatch.undo()
    assert (said.code, said.err) == (0, "")
    assert heads(said.out)[0] == "train digits"


def test_home_folder_is_not_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    write_pictures(tmp_path, CLASSES, seed=3, name="{}.png", noise=20)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "train ." not in cli().out
