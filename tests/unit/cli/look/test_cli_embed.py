"""`vitreous embed`: files, tables and messages."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Cli = Callable[..., Any]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_all_tables_are_printed_and_written_next_to_the_vectors(
    run: Path, photos: Path, image: Path, cli: Cli, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(photos, tmp_path / "copied"))
    shutil.copy(image, copied / "copy.png")
    said = cli("embed", run, copied, "--out", tmp_path / "x.npy", "--nearest", image, "--top", 3, "--duplicates",
               "--clusters", 4)  # fmt: skip
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"62 images, 16 features each, in {tmp_path / 'x.npy'} and {tmp_path / 'x.paths.csv'}\n")
    paths = [row["path"] for row in rows(tmp_path / "x.paths.csv")]
    assert np.load(tmp_path / "x.npy").shape == (62, 16)
    assert len(paths) == 62
    nearest = rows(tmp_path / "x.nearest.csv")
    assert [row["query"] for row in nearest] == [str(image)] * 3
    assert {row["path"] for row in nearest[:2]} == {str(copied / "copy.png"), str(copied / image.relative_to(photos))}
    assert nearest[0]["similarity"] == "1.0000"
    groups = [row["group"] for row in rows(tmp_path / "x.duplicates.csv") if "copy.png" in row["path"]]
    assert len(groups) == 1
    clusters = rows(tmp_path / "x.clusters.csv")
    assert [row["path"] for row in clusters] == paths
    assert {row["cluster"] for row in clusters} == set("0123")
    assert "check them before you delete any" in said.out
    assert "4 clusters, the largest first" in said.out


def test_unreadable_image_is_named_after_the_others_are_written(
    run: Path, image: Path, broken: Path, cli: Cli, tmp_path: Path
) -> None:
    said = cli("embed", run, image, broken, "--out", tmp_path / "x.npy")
    assert said.code == 2
    assert said.err == (
        f"1 of 2 images could not be read ({broken}: not an image that Pillow can read); the other one is embedded\n"
    )
    assert [row["path"] for row in rows(tmp_path / "x.paths.csv")] == [str(image)]


def test_nothing_is_written_if_no_image_can_be_read(run: Path, broken: Path, cli: Cli, tmp_path: Path) -> None:
    said = cli("embed", run, broken, "--out", tmp_path / "x.npy", "--duplicates")
    assert (said.code, said.out) == (2, "")
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "out=None: nothing to do; use --out FILE, --nearest IMAGE, --duplicates or --clusters NUMBER"),
        (("--out", "x.csv"), "out=x.csv: ends in .csv; use one of .npy, .parquet"),
        (("--clusters", 2), "clusters=2: 1 image can be divided into 1 to 1 clusters; use a number in this range"),
        (("--duplicates", "--top", 0), "top=0: must be at least 1; use e.g. 10"),
        (
            ("--duplicates", "--img-size", "9x12"),
            "img_size=9x12: not divisible by the model's patches of 4 px; use 8x12",
        ),
        (("--nearest", "no.png"), "image=no.png: no such file or folder; give images or folders of them"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    run: Path, image: Path, cli: Cli, options: tuple[object, ...], line: str
) -> None:
    said = cli("embed", run, image, *options)
    assert (said.code, said.out, said.err) == (2, "", f"{line}\n")


def test_unreadable_query_is_named(run: Path, image: Path, broken: Path, cli: Cli) -> None:
    said = cli("embed", run, image, "--nearest", broken)
    assert said.code == 2
    assert said.err.startswith(f"1 of 1 image could not be read ({broken}: ")
