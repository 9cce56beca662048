"""`vitreous inspect`: a run, data or a model, as text and as JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def test_run_is_described(run: Path, cli: Cli) -> None:
    said = cli("inspect", run)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(
        f"run {run}\ndata               my photos\nclasses            3: [red]:cat:, two words and Äpfel\n"
    )
    assert "\ntest accuracy      " in said.out


def test_data_is_described(photos: Path, cli: Cli) -> None:
    said = cli("inspect", photos)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("data my photos\nimages            ")
    assert any(line.split()[:2] == ["two", "words"] for line in said.out.splitlines())


def test_model_is_described_with_each_row_on_one_line(cli: Cli) -> None:
    said = cli("inspect", "vit_huge_patch14_224")
    assert (said.code, said.err) == (0, "")
    assert "\nparameters        632,045,800\n" in said.out
    rows = [line for line in said.out.splitlines() if line.startswith("encoder.blocks")]
    assert len(rows) == 3
    assert all(line == line.rstrip() and line.split()[-2].replace(",", "").isdigit() for line in rows)


def test_json_output_is_only_the_document(run: Path, photos: Path, cli: Cli) -> None:
    for thing, kind in ((run, "run"), (photos, "data"), ("vit_tiny_patch16_224", "model")):
        said = cli("inspect", thing, "--json")
        assert (said.code, said.err) == (0, "")
        assert json.loads(said.out)["kind"] == kind
    assert json.loads(said.out)["parameters"] == 5_717_416


def test_unreadable_files_are_a_finding(cli: Cli, photos: Path, tmp_path: Path) -> None:
    for name in ("Äpfel", "two words"):
        (tmp_path / "some" / name).mkdir(parents=True)
        for number in range(3):
            source = photos / name / f"bild {number} ü.png"
            (tmp_path / "some" / name / source.name).write_bytes(source.read_bytes())
    broken = tmp_path / "some" / "Äpfel" / "[b].png"
    broken.touch()
    said = cli("inspect", tmp_path / "some")
    assert said.code == 0
    assert ". warning: 1 file cannot be decoded\n" in said.out
    assert f"\n   {broken} (empty file)\n" in said.out


def test_page_with_pictures_is_written_if_requested(cli: Cli, photos: Path, tmp_path: Path) -> None:
    said = cli("inspect", photos, "--html", tmp_path / "doctor.html")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith(f"pictures: {tmp_path / 'doctor.html'}\n")
    assert "data:image/jpeg;base64," in (tmp_path / "doctor.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("x.png", "html=x.png: ends in .png; use one of .html, .htm"),
        ("gone/x.html", "html=gone/x.html: the folder gone does not exist; create it first"),
    ],
)
def test_invalid_page_path_is_rejected_before_data_is_read(name: str, line: str, photos: Path, cli: Cli) -> None:
    said = cli("inspect", photos, "--html", name)
    assert (said.code, said.out, said.err) == (2, "", f"{line}\n")


def test_findings_come_last_with_advice(cli: Cli, photos: Path, tmp_path: Path) -> None:
    for name in ("Äpfel", "two words"):
        (tmp_path / "some" / name).mkdir(parents=True)
        for number in range(6):
            source = photos / name / f"bild {number} ü.png"
            (tmp_path / "some" / name / source.name).write_bytes(source.read_bytes())
    copied = tmp_path / "some" / "two words" / "\x1b[2Jcopy.png"
    copied.write_bytes((photos / "Äpfel" / "bild 0 ü.png").read_bytes())
    said = cli("inspect", tmp_path / "some")
    lines = said.out.splitlines()
    start = next(n for n, line in enumerate(lines) if ". fault: 2 images are copies of each other but" in line)
    assert lines[start + 2] == "   -> Decide which class is right and delete the copies in the others."
    assert lines[start + 3].startswith("   ")
    one, other = lines[start + 3].split(" = ")
    assert one.endswith("two words/\\x1b[2Jcopy.png")
    assert other.endswith("Äpfel/bild 0 ü.png")
    assert "\x1b" not in said.out
    assert lines[-1].startswith("findings: ")


@pytest.mark.parametrize(
    ("thing", "line"),
    [
        ("digts", "inspect=digts: not a path, data set or model; did you mean digits?"),
        (
            "vit_hug_patch14_224",
            "inspect=vit_hug_patch14_224: not a path, data set or model; did you mean vit_huge_patch14_224?",
        ),
        ("vit_tiny", "model=vit_tiny: does not specify the image size; "),
        ("vit_tiny_patch15_224", "model.patch_size=15: does not divide data.img_size=224 (remainder 14); use 14, 16, "),
        (".", "data.source=.: holds no image file; use a folder with one folder of images per class"),
    ],
)
def test_invalid_request_is_reported_in_one_line(thing: str, line: str, cli: Cli) -> None:
    said = cli("inspect", thing)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1
