"""Command-line words -> exit code, with one clear line on standard error if something goes wrong."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous import __version__
from vitreous.cli.main import main, spell_out_keys
from vitreous.errors import ConfigError, NonFiniteError
from vitreous.training.machine.signals import Interrupted

Cli = Callable[..., Any]
COMMANDS = ("train", "evaluate", "predict", "inspect", "convert", "shard", "compare")

NAMES = st.from_regex(r"[a-z]+\.[a-z][a-z_]*", fullmatch=True)
VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).filter(lambda text: text[:2] != "--")


# Configuration keys are options.


@given(NAMES, VALUES)
def test_key_may_be_separated_from_its_value_by_equals_or_space(name: str, value: str) -> None:
    joined, apart = spell_out_keys([f"--{name}={value}"]), spell_out_keys([f"--{name}", value])
    assert joined == apart == [f"--set={name}={value}"]


@given(NAMES, VALUES, st.lists(st.sampled_from(["data", "--out", "x y", "-1", "--epochs=3"])))
def test_other_words_keep_their_places(name: str, value: str, others: list[str]) -> None:
    assert spell_out_keys([*others, f"--{name}", value, *others]) == [*others, f"--set={name}={value}", *others]


@given(NAMES, st.floats(allow_nan=False, allow_infinity=False, max_value=0))
def test_negative_number_is_a_value(name: str, value: float) -> None:
    assert spell_out_keys([f"--{name}", str(value)]) == [f"--set={name}={value}"]


@pytest.mark.parametrize(
    ("words", "spelled"),
    [
        (["--optim.lr", "-1"], ["--set=optim.lr=-1"]),
        (["--data.source", "a=b c"], ["--set=data.source=a=b c"]),
        (["--data.source=a=b c"], ["--set=data.source=a=b c"]),
        (["--optim.lr="], ["--set=optim.lr="]),
        (["--data.batch-size", "8"], ["--set=data.batch_size=8"]),
        (["--data.flip"], ["--set=data.flip=true"]),
        (["--data.flip", "--train.seed", "3"], ["--set=data.flip=true", "--set=train.seed=3"]),
        (["--data.flip", "--out", "x"], ["--set=data.flip=true", "--out", "x"]),
        (["--out=runs/x.y"], ["--out=runs/x.y"]),
        (["photos.old", "-1.5", "--budget", "1.5h"], ["photos.old", "-1.5", "--budget", "1.5h"]),
        ([], []),
    ],
)
def test_spelling_of_keys(words: list[str], spelled: list[str]) -> None:
    assert spell_out_keys(words) == spelled


def test_given_words_are_not_modified() -> None:
    words = ["--data.flip", "--optim.lr", "3"]
    spell_out_keys(words)
    assert words == ["--data.flip", "--optim.lr", "3"]


# Help and version.


def test_help_lists_every_command_and_debug(cli: Cli) -> None:
    said = cli("--help")
    assert (said.code, said.err) == (0, "")
    for command in (*COMMANDS, "--debug"):
        assert command in said.out


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("train", "train [DATA] [OPTIONS]"),
        ("evaluate", "evaluate RUN [DATA] [OPTIONS]"),
        ("predict", "predict RUN IMAGE|FOLDER|TABLE|TAR… [OPTIONS]"),
        ("inspect", "inspect RUN|DATA|WEIGHTS|MODEL [OPTIONS]"),
    ],
)
def test_help_of_a_command_begins_with_its_usage(command: str, usage: str, cli: Cli) -> None:
    for word in ("--help", "-h"):
        said = cli(command, word)
        assert (said.code, said.err) == (0, "")
        assert said.out.startswith(f"Usage: vitreous {usage}\n")


def test_help_of_a_command_has_the_whole_text_of_its_function(cli: Cli) -> None:
    said = " ".join(cli("completion", "--help").out.split())
    for shell in ("bash", "zsh", "fish"):
        assert f"For {shell}: vitreous completion {shell} >" in said
    assert "create it with mkdir -p first" in said
    assert "For data, every image is decoded" in cli("inspect", "--help").out
    assert "For data" not in cli("--help").out


def test_help_of_train_mentions_the_keys(cli: Cli) -> None:
    said = cli("train", "--help")
    for word in ("--optim.weight_decay 0.1", "--data.flip false", "--dry-run", "--budget", "--resume", "plan.md"):
        assert word in said.out
    assert "--set" not in said.out


def test_version_is_that_of_the_package(cli: Cli) -> None:
    assert cli("--version").out.strip() == __version__


# Invalid commands: exit code 2 and one line with what to do.


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian"], "trian: no such command; did you mean train?"),
        (
            ["help"],
            "help: no such command; use one of benchmark, compare, completion, convert, embed, env, evaluate, ",
        ),
        (["train", "digits", "--epoch", "3"], "--epoch: no such option; did you mean --epochs?"),
        (
            ["train", "digits", "--warmup-ratio", "3"],
            "--warmup-ratio: no such option; did you mean --optim.warmup_ratio?",
        ),
        (["train", "digits", "--flip", "no"], "--flip: no such option; did you mean --data.flip?"),
        (
            ["train", "my", "photos"],
            "photos: unexpected argument of `vitreous train`; quote names that contain spaces, or see --help",
        ),
        (["train", "--out"], "--out: needs a value; see `vitreous train --help`"),
        (["train", "digits", "--epochs", "many"], "train.epochs=many: must be a number in [0, inf); 20 is a start"),
        (["evaluate"], "RUN: missing argument of `vitreous evaluate`; see `vitreous evaluate --help`"),
        (["evaluate", "x", "y", "z"], "z: unexpected argument of `vitreous evaluate`; quote names that contain "),
        (["predict"], "RUN: missing argument of `vitreous predict`; see `vitreous predict --help`"),
        (["predict", "x"], "IMAGES: missing argument of `vitreous predict`; see `vitreous predict --help`"),
        (["inspect"], "THING: missing argument of `vitreous inspect`; see `vitreous inspect --help`"),
        (["train", "digits", "--gpu"], "--gpu: no such option; see `vitreous train --help`"),
        (["inspect", "digits", "--jsn"], "--jsn: no such option; did you mean --json?"),
        (["push", "runs/x", "--dry-run"], "--dry-run: no such option; see `vitreous push --help`"),
        (["train", "--epoch", "3"], "--epoch: no such option; did you mean --epochs?"),
    ],
)
def test_invalid_command_is_reported_in_one_line(words: list[str], line: str, cli: Cli) -> None:
    said = cli(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1


# Exit codes.


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a.b=3: must be 4; use 4"), 2, "a.b=3: must be 4; use 4"),
        (NonFiniteError("step=7: the loss is not finite; lower optim.lr"), 1, "step=7: the loss is not finite; "),
        (Interrupted(2, Path("runs/x"), 7), 130, "runs/x: stopped at step 7 and saved; continue with `vitreous train "),
        (
            Interrupted(15, Path("runs/x"), 7),
            143,
            "runs/x: stopped at step 7 and saved; continue with `vitreous train ",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            PermissionError(13, "Permission denied", "/x/y"),
            2,
            "/x/y: Permission denied; check the path and its permissions",
        ),
        (OSError("odd"), 1, "OSError: odd; this is a bug in vitreous, --debug shows where"),
        (ZeroDivisionError("one\n two"), 1, "ZeroDivisionError: one two; this is a bug in vitreous, --debug shows"),
    ],
)
def test_exit_code_depends_on_the_error(
    error: BaseException, code: int, line: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    _let_inspect_raise(error, monkeypatch)
    said = cli("inspect", "digits")
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("words", [["--debug", "inspect", "digits"], ["inspect", "digits", "--debug"]])
def test_debug_adds_the_traceback(words: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    _let_inspect_raise(ConfigError("a.b=3: must be 4; use 4"), monkeypatch)
    said = cli(*words)
    assert said.code == 2
    assert said.err.startswith("Traceback (most recent call last):")
    assert said.err.endswith("\na.b=3: must be 4; use 4\n")


def test_debug_changes_nothing_without_an_error(cli: Cli) -> None:
    assert cli("inspect", "vit_tiny_patch16_224", "--debug") == cli("inspect", "vit_tiny_patch16_224")


def test_message_is_printed_verbatim(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[red]:cat:[/red]=1: \\[x]; use 'y' " + "and a long explanation " * 20
    _let_inspect_raise(ConfigError(text), monkeypatch)
    assert cli("inspect", "digits").err == text + "\n"


def test_overlong_path_is_a_users_mistake(cli: Cli) -> None:
    for words in (["inspect", "a" * 300], ["predict", "a" * 300, "x.png"], ["train", "a" * 300]):
        said = cli(*words)
        assert said.code == 2
        assert said.err.count("\n") == 1
        assert "bug in vitreous" not in said.err


def test_closed_pipe_is_not_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    closed: list[int] = []
    monkeypatch.setattr("os.dup2", lambda source, target: closed.append(target))
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1, raising=False)
    _let_inspect_raise(BrokenPipeError(32, "Broken pipe"), monkeypatch)
    assert main(["inspect", "digits"]) == 1
    assert closed == [1]  # the remaining output is discarded
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["train", "--help-keys"], ["inspect", "vit_nano_patch8_32", "--json"]])
def test_output_to_a_full_disk_is_reported_in_one_line(words: list[str]) -> None:
    command = [sys.executable, "-m", "vitreous", *words]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    line = "standard output: could not be written (No space left on device); send it elsewhere\n"
    assert (done.returncode, done.stderr) == (1, line)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_exit_code_remains_when_the_error_cannot_be_shown() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "vitreous", "trian"], stderr=full, timeout=120, check=False)
    assert done.returncode == 2


def test_words_default_to_the_arguments_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vitreous", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.strip() == __version__


def _let_inspect_raise(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("vitreous.cli.look.inspect.inspect_thing", fail)


def test_command_sets_thread_waits_and_allocator(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for name in ("let_threads_sleep", "keep_freed_memory"):
        monkeypatch.setattr(f"vitreous.cli.main.{name}", lambda name=name: called.append(name))
    assert cli("--version").code == 0
    assert called == ["let_threads_sleep", "keep_freed_memory"]


def test_option_given_twice_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "x", "--to", "timm", "--to=npz"]) == 2
    assert capsys.readouterr().err == "--to: given more than once; give it once\n"


def test_file_whose_name_looks_like_json_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.safetensors"
    for name in ("[]", '["photos"]'):
        assert main(["predict", str(model), name]) == 2
        assert "bug" not in capsys.readouterr().err
