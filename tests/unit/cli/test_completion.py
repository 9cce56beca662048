"""`vitreous completion`: the scripts complete commands, options, names that exist, and paths."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from tests.unit.cli.conftest import Said

from vitreous.cli import options
from vitreous.model.config.presets import SIZES
from vitreous.recipe.shipped import SHIPPED
from vitreous.training.machine.device import PRECISIONS
from vitreous.training.weights.backbones import BACKBONES

Cli = Callable[..., Said]
_TRY = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_vitreous vitreous "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def names(kind: Any) -> set[str]:
    """Return the names that a shell completes for an option of this type."""
    return set(get_args(get_args(get_args(kind)[0])[0]))


def test_completed_names_are_those_that_exist() -> None:
    assert names(options.RecipeName) == set(SHIPPED)
    assert names(options.BackboneName) == {"auto", "none", *BACKBONES}
    assert names(options.ModelName) <= {f"vit_{size}" for size in SIZES}
    assert names(options.Precision) == {"auto", *PRECISIONS}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_names_and_paths(cli: Cli, tmp_path: Path) -> None:
    said = cli("completion", "bash")
    script = tmp_path / "script.bash"
    script.write_text(said.out, encoding="utf-8")
    (tmp_path / "runs").mkdir()
    assert "complete -o default -F _vitreous vitreous" in said.out  # a path where no name fits
    for words, expected in (
        (["tr"], ["train"]),
        (["train", "--rec"], ["--recipe"]),
        (["train", "--recipe", "s"], ["small-images", "small-photos"]),
        (["train", "--pretrained", "dinov2"], ["dinov2-small", "dinov2-base"]),
        (["predict", "ru"], ["runs"]),
        (["train", "--recipe", "my"], [""]),
    ):
        done = subprocess.run(
            ["bash", "-c", _TRY, "bash", script, "vitreous", *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.removesuffix("\n").split("\n") == expected, words


@pytest.mark.parametrize(("shell", "check"), [("zsh", "-n"), ("fish", "--no-execute")])
def test_scripts_of_other_shells_can_be_parsed(shell: str, check: str, cli: Cli, tmp_path: Path) -> None:
    said = cli("completion", shell)
    assert (said.code, said.err) == (0, "")
    assert "small-photos" in said.out
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    (tmp_path / "script").write_text(said.out, encoding="utf-8")
    subprocess.run([shell, check, tmp_path / "script"], check=True, timeout=60)


def test_names_do_not_limit_what_an_option_takes(cli: Cli, tmp_path: Path) -> None:
    said = cli("train", "digits", "--recipe", tmp_path / "none.yaml", "--device", "cpu:0", "--dry-run")
    assert (said.code, said.out) == (2, "")
    assert "none.yaml" in said.err


def test_unknown_shell_is_one_line(cli: Cli) -> None:
    assert cli("completion", "fsh").err == "shell=fsh: no script for this shell; did you mean fish?\n"
