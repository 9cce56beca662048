"""`vitreous explain RUN --check`: tables, the sentence, files, JSON."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.cli.look.explain import check_methods
from vitreous.errors import ConfigError
from vitreous.use.explain.check.faithfulness import FILE


def test_screen_shows_tables_verdict_and_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_methods(run, method="gradient-attention", num_images=10, out=tmp_path / "found", device="cpu")
    said = capsys.readouterr()
    content = json.loads((tmp_path / "found" / FILE).read_text(encoding="utf-8"))
    assert said.err == ""
    lines = said.out.splitlines()
    assert re.fullmatch(r"[\d,]+ forward passes, about \d+ s", lines[0])
    assert sum(line.startswith("gradient × attention  ") for line in lines) == 2
    assert sum(line.startswith("random order  ") for line in lines) == 2
    assert set(content["sentences"]) <= set(lines)
    assert lines[-1] == f"written: {tmp_path / 'found' / FILE}, {tmp_path / 'found' / 'curves.png'}"
    assert content["num_images"] == 10


def test_json_is_the_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_methods(run, method="gradient-attention", num_images=10, out=tmp_path, device="cpu", as_json=True)
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / FILE).read_text(encoding="utf-8"))


def test_command_passes_its_options_on(run: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    out = tmp_path / "found"
    said = cli(
        "explain", run, "--check", "--method", "grad-cam", "--images", 10, "--out", out, "--device", "cpu", "--json"
    )
    assert said.code == 0
    assert re.fullmatch(r"[\d,]+ forward passes, about \d+ s\n", said.err)
    assert list(json.loads(said.out)["methods"]) == ["grad-cam", "random", "center"]
    assert json.loads(said.out) == json.loads((out / FILE).read_text(encoding="utf-8"))
    said = cli("explain", run, "--check", "--method", "gradcam", "--device", "cpu")
    assert (said.code, said.err) == (2, "method=gradcam: no such method; did you mean grad-cam?\n")


def test_model_file_needs_a_folder_for_the_results(run: Path) -> None:
    file = run / "model.safetensors"
    rule = "is a model without a run folder, so .* for the results; add --out FOLDER"
    with pytest.raises(ConfigError, match=rf"^run={file}: {rule}$"):
        check_methods(file, "digits")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0", "images=0: too few to compare methods; use 10 or more"),
        ("25.5", "--images=25.5: must be a whole number; see `vitreous explain --help`"),
    ],
)
def test_number_of_images_is_not_changed(given: str, message: str, run: Path, cli: Callable[..., Any]) -> None:
    said = cli("explain", run, "--check", "--images", given, "--device", "cpu")
    assert (said.code, said.err) == (2, f"{message}\n")
