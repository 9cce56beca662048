"""`vitreous explain`: files, table and messages."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitreous.use.explain.methods import METHODS

Cli = Callable[..., Any]


def test_first_command_writes_a_picture_and_says_what_it_shows(run: Path, image: Path, cli: Cli) -> None:
    said = cli("explain", run, image)
    assert (said.code, said.err) == (0, "")
    head, row, last = said.out.splitlines()
    assert head.split() == ["image", "predicted", "probability", "explanation"]
    assert row.startswith(str(image))
    assert re.search(r"\d+% of (the relevance|what raises the score) in \d+% of the area", row)
    assert last == "1 picture in explanations-1"
    with Image.open("explanations-1/bild 3 ü.png") as picture:
        assert picture.width > 600
    assert cli("explain", run, image).out.endswith("1 picture in explanations-2\n")


def test_json_is_that_of_the_file_and_the_table_of_predict(run: Path, photos: Path, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    folder.mkdir()
    for number in range(3):
        shutil.copy(photos / "two words" / f"bild {number} ü.png", folder)
    said = cli("explain", run, folder, "--target", "[red]:cat:", "--versus", "two words", "--json", "--out", "new")
    assert (said.code, said.err) == (0, "")
    printed = json.loads(said.out)
    stored = json.loads(Path("new/explanations.json").read_text(encoding="utf-8"))
    assert printed == {"folder": "new", **stored}
    assert printed["model"] == str(run)
    predicted = json.loads(cli("predict", run, folder, "--json").out)
    found = printed["explanations"]
    assert [(e["image"], e["prediction"]) for e in found] == [(p["image"], p["label"]) for p in predicted]
    np.testing.assert_allclose([e["probability"] for e in found], [p["probability"] for p in predicted], rtol=1e-5)
    np.testing.assert_allclose(
        [e["target_probability"] for e in found], [p["probabilities"]["[red]:cat:"] for p in predicted], rtol=1e-5
    )
    assert {(e["target"], e["versus"]) for e in found} == {("[red]:cat:", "two words")}
    assert all(Path("new", e["picture"]).is_file() for e in found)


def test_folder_of_photos_ends_with_a_sheet(run: Path, image: Path, cli: Cli) -> None:
    said = cli("explain", run, image, image.with_name("bild 4 ü.png"), "--out", "new", "--method", "all")
    assert said.code == 0
    assert said.out.splitlines()[-1] == f"{2 * len(METHODS)} pictures in new; start with sheet-1.png"
    assert all(method.label in said.out for method in METHODS.values())
    assert Path("new/sheet-1.png").is_file()


def test_unreadable_image_is_named_after_the_others_are_explained(
    run: Path, image: Path, broken: Path, cli: Cli
) -> None:
    said = cli("explain", run, image, broken)
    assert said.code == 2
    assert said.out.endswith("1 picture in explanations-1\n")
    assert said.err == (
        f"1 of 2 images could not be read ({broken}: not an image that Pillow can read); the other one is explained\n"
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--method", "gradient"), "method=gradient: no such method; did you mean "),
        (("--target", "two word"), "target=two word: no such class; did you mean two words?"),
        (("--target", "two words", "--versus", "two words"),
         "versus=two words: is the target itself; choose another class"),
        (("--out", "full"), "out=full: is not empty; choose a new folder"),
        (("--out", "full/file"), "out=full/file: is a file; choose a new folder"),
        (("no.png",), "image=no.png: no such file or folder; give images or folders of them"),
        (("--architecture.num_heads", "3"), "already describes its model; leave out name, architecture and weights"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_in_one_line_and_leave_nothing(
    run: Path, image: Path, cli: Cli, options: tuple[str, ...], line: str
) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    said = cli("explain", run, image, *options)
    assert (said.code, said.out) == (2, "")
    assert line in said.err
    assert said.err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["full"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--architecture.num_heads", "3"),
         "--architecture.num_heads=3: has no use for vitreous explain RUN; leave it out, or give images"),
        (("--check", "--architecture.num_heads", "3"),
         "--architecture.num_heads=3: has no use for --check; leave it out"),
        (("--check", "--weights", "ema"), "--weights=ema: has no use for --check; leave it out"),
        (("--model", "--target", "Äpfel"), "--target=Äpfel: has no use for --model; leave it out"),
        (("--model", "--check"), "--model: has no use for --check; leave it out"),
    ],
)  # fmt: skip
def test_options_that_a_command_about_the_whole_model_would_ignore_are_refused(
    run: Path, cli: Cli, options: tuple[str, ...], line: str
) -> None:
    said = cli("explain", run, *options)
    assert (said.code, said.out, said.err) == (2, "", f"{line}\n")


def test_image_given_first_is_explained_as_a_mistake(run: Path, image: Path, cli: Cli) -> None:
    said = cli("explain", image, run)
    assert said.code == 2
    assert "give the run first" in said.err


def test_unfinished_run_without_a_model_is_refused(unfinished: Path, image: Path, cli: Cli) -> None:
    said = cli("explain", unfinished, image)
    assert said.code == 2
    assert "is not finished; continue it with" in said.err


def test_escape_codes_in_names_do_not_reach_the_terminal(run: Path, image: Path, cli: Cli, tmp_path: Path) -> None:
    hostile = tmp_path / "line\nbreak\x1b[31m.png"
    shutil.copy(image, hostile)
    said = cli("explain", run, hostile)
    assert said.code == 0
    assert "\x1b" not in said.out
    assert len(said.out.splitlines()) == 3


def test_help_describes_every_option(cli: Cli) -> None:
    said = cli("explain", "--help")
    assert said.code == 0
    for option in ("--method", "--target", "--versus", "--out", "--device", "--json", "--weights"):
        assert option in said.out
