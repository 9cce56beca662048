"""`vitreous predict`: lines, a table or a JSON document, with one entry per image."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

Cli = Callable[..., Any]
CLASSES = ["[red]:cat:", "two words", "Äpfel"]


def test_each_image_gets_a_line(run: Path, image: Path, photos: Path, cli: Cli) -> None:
    said = cli("predict", run, image, photos / "two words")
    lines = said.out.splitlines()
    assert (said.code, said.err) == (0, "")
    assert len(lines) == 1 + 16
    assert lines[0].startswith(f"{image}: ")
    assert all(line.endswith("%)") and any(f": {name} (" in line for name in CLASSES) for line in lines)


def test_json_output_is_only_the_document_with_a_probability_per_class(run: Path, image: Path, cli: Cli) -> None:
    said = cli("predict", run, image, image, "--json")
    found = json.loads(said.out)
    assert (said.code, said.err) == (0, "")
    assert found[0] == found[1]
    assert list(found[0]) == ["image", "label", "probability", "probabilities", "error", "labels"]
    assert found[0]["labels"] == [found[0]["label"]]
    assert list(found[0]["probabilities"]) == CLASSES
    assert found[0]["probabilities"][found[0]["label"]] == found[0]["probability"]
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_table_has_one_row_per_image(suffix: str, run: Path, photos: Path, cli: Cli, tmp_path: Path) -> None:
    said = cli("predict", run, photos / "two words", "--out", tmp_path / f"x{suffix}")
    assert (said.code, said.err) == (0, "")
    assert said.out == f"16 predictions in {tmp_path / f'x{suffix}'}\n"
    document = json.loads(cli("predict", run, photos / "two words", "--json").out)
    rows = _read(tmp_path / f"x{suffix}")
    assert [row["path"] for row in rows] == [row["image"] for row in document]
    assert [row["predicted"] for row in rows] == [row["label"] for row in document]
    for row, wanted in zip(rows, document, strict=True):
        assert float(row["probability"]) == wanted["probability"]
        assert [float(row[f"p_{name}"]) for name in CLASSES] == list(wanted["probabilities"].values())


@pytest.mark.parametrize("format_", ["label-studio", "fiftyone"])
def test_file_of_a_labeling_tool_has_the_predictions(
    format_: str, run: Path, photos: Path, cli: Cli, tmp_path: Path
) -> None:
    said = cli("predict", run, photos / "two words", "--out", tmp_path / "x.json", "--format", format_)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"16 predictions in {tmp_path / 'x.json'}; ")
    document = json.loads(cli("predict", run, photos / "two words", "--json").out)
    content = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    if format_ == "fiftyone":
        found = [CLASSES[target["label"]] for target in content["labels"].values()]
    else:
        found = [task["predictions"][0]["result"][0]["value"]["choices"][0] for task in content]
    assert found == [row["label"] for row in document]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "x.json"), "out=x.json: JSON files are for labeling tools; add --format label-studio or"),
        (("--out", "x.csv", "--format", "fiftyone"), "format=fiftyone: is a single .json file; add --out labels.json"),
        (("--out", "x", "--format", "label-studio"), "format=label-studio: is a single .json file; add --out"),
        (("--out", "x.json", "--format", "csv"), "format=csv: only applies to a folder of tables, but out=x.json"),
        (("--out", "x.json", "--format", "fiftyone", "--workers", "2"), "workers=2: only applies to a folder"),
    ],
)
def test_format_that_does_not_suit_the_file_is_refused(
    words: tuple[str, ...], message: str, run: Path, image: Path, cli: Cli
) -> None:
    said = cli("predict", run, image, *words)
    assert said.code == 2
    assert message in said.err


def test_images_of_an_export_are_classified(run: Path, photos: Path, cli: Cli, tmp_path: Path) -> None:
    names = sorted(path.name for path in (photos / "two words").iterdir())[:3]
    content = {"images": [{"id": name, "file_name": name} for name in names], "annotations": [], "categories": []}
    (tmp_path / "photos").symlink_to(photos / "two words")
    (tmp_path / "photos.json").write_text(json.dumps(content))
    moved = {"images": [{"id": name, "file_name": f"photos/{name}"} for name in names]}
    (tmp_path / "photos.json").write_text(json.dumps(content | moved))
    said = cli("predict", run, tmp_path / "photos.json")
    assert said.code == 0
    assert sum(": " in line and line.endswith("%)") for line in said.out.splitlines()) == 3
    assert "photos.json: is read as COCO annotations" in said.out + said.err


def test_table_and_json_can_be_combined(run: Path, image: Path, cli: Cli, tmp_path: Path) -> None:
    said = cli("predict", run, image, "--out", tmp_path / "x.csv", "--json")
    assert len(json.loads(said.out)) == len(_read(tmp_path / "x.csv")) == 1
    assert said.err == f"1 prediction in {tmp_path / 'x.csv'}\n"


def test_model_file_without_its_run_predicts(run: Path, image: Path, cli: Cli, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes((run / "model.safetensors").read_bytes())
    assert cli("predict", moved, image) == cli("predict", run, image)


def test_unreadable_image_is_reported_and_the_others_are_classified(
    run: Path, image: Path, broken: Path, cli: Cli, tmp_path: Path
) -> None:
    said = cli("predict", run, image, broken, image)
    wanted = (
        f"1 of 3 images could not be read ({broken}: not an image that Pillow can read); the other 2 are classified\n"
    )
    assert (said.code, said.err) == (2, wanted)
    assert said.out.count(f"{image}: ") == 2
    said = cli("predict", run, image, broken, "--out", tmp_path / "x.csv")
    assert said.err.endswith("; the other one is classified\n")
    assert [row["error"] for row in _read(tmp_path / "x.csv")] == ["", f"{broken}: not an image that Pillow can read"]
    said = cli("predict", run, broken, "--json")
    assert said.err.endswith("; none is classified\n")
    assert json.loads(said.out)[0]["probabilities"] == {}


def test_of_many_unreadable_images_only_the_first_are_listed(run: Path, cli: Cli, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    said = cli("predict", run, tmp_path)
    assert said.err.startswith(
        f"8 of 8 images could not be read ({tmp_path}/0.png: not an image that Pillow can read, "
    )
    assert said.err.endswith(f"{tmp_path}/4.png: not an image that Pillow can read and 3 more); none is classified\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["no/run", "IMAGE"], "run=no/run: does not exist; train a model with `vitreous train DATA`"),
        (["RUN", "gone.png"], "image=gone.png: no such file or folder; give images, folders, tables of paths, exp"),
        (["RUN", "."], "image=.: a folder without images; give images or a folder of them"),
        (["RUN", "IMAGE", "--out", "x.txt"], "out=x.txt: ends in .txt; use one of .csv, .jsonl, .parquet"),
        (["RUN", "IMAGE", "--out", "no/x.csv"], "out=no/x.csv: the folder no does not exist; create it first"),
        (["RUN", "IMAGE", "--device", "cuda:99"], "device=cuda:99: PyTorch finds "),
        (
            ["RUN", "IMAGE", "--engine", "ray"],
            "engine=ray: only applies to a folder of tables, but out=None; add --out ",
        ),
        (
            ["RUN", "IMAGE", "--out", "x.csv", "--workers", "2"],
            "workers=2: only applies to a folder of tables, but out=",
        ),
        (["RUN", "IMAGE", "--out", "x", "--engine", "spark"], "engine=spark: must be one of local, ray"),
        (["RUN", "IMAGE", "--out", "x", "--format", "xlsx"], "format=xlsx: must be one of csv, jsonl, parquet"),
        (["RUN", "IMAGE", "--out", "x", "--workers", "0"], "workers=0: must be from 1 to 65,535"),
        (
            ["RUN", "IMAGE", "--out", "x", "--address", "a:1"],
            "address=a:1: only applies to a Ray cluster; add --engine ",
        ),
        (
            ["RUN", "IMAGE", "--out", "s3://b/x"],
            "out=s3:/b/x: is an address; name a folder of this machine, and copy it",
        ),
        (["RUN", "IMAGE", "--out", "no/x"], "no/x: cannot be created (No such file or directory); choose another"),
        (["RUN", "IMAGE", "--out", "x", "--device", "cuda:99"], "device=cuda:99: PyTorch finds "),
        (["IMAGE", "RUN"], "run=IMAGE: is an image; give the run first, as in `vitreous predict RUN IMAGE`"),
    ],
)
def test_invalid_request_is_reported_in_one_line(words: list[str], line: str, run: Path, image: Path, cli: Cli) -> None:
    paths = {"RUN": str(run), "IMAGE": str(image)}
    said = cli("predict", *(paths.get(word, word) for word in words))
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line.replace("run=IMAGE", f"run={image}"))
    assert said.err.count("\n") == 1


def test_parquet_without_pyarrow_is_rejected_before_prediction(
    run: Path, image: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = cli("predict", run, image, "--out", "x.parquet")
    assert said.code == 2
    assert said.err.startswith(
        "out=….parquet: needs pyarrow, which is not installed; `pip install 'vitreous[parquet]'`"
    )


def test_ray_that_is_missing_is_reported_before_anything_is_written(
    run: Path, image: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = cli("predict", run, image, "--out", tmp_path / "parts", "--engine", "ray")
    assert said.code == 2
    assert said.err == "engine=ray: needs ray, which is not installed; run `pip install 'vitreous[ray]'`\n"
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_folder_has_the_rows_of_one_table(
    kind: str, run: Path, photos: Path, broken: Path, cli: Cli, tmp_path: Path
) -> None:
    data = [*[photos] * 5, broken]
    whole = cli("predict", run, *data, "--out", tmp_path / f"x.{kind}")
    for _ in range(2):  # the second time, everything is there
        said = cli("predict", run, *data, "--out", tmp_path / "parts", "--format", kind, "--workers", "1")
        assert (said.code, said.err) == (2, whole.err)
        assert said.out == f"306 predictions in {tmp_path / 'parts'}: 2 tables and manifest.json\n"
    parts = sorted((tmp_path / "parts").glob("part-*"))
    assert [path.name for path in parts] == [f"part-000000.{kind}", f"part-000001.{kind}"]
    assert [row for path in parts for row in _read(path)] == _read(tmp_path / f"x.{kind}")
    found = json.loads(cli("predict", run, *data, "--out", tmp_path / "parts", "--format", kind, "--json").out)
    assert [part["unreadable"] for part in found["done"].values()] == [0, 1]


def test_folder_has_the_columns_that_were_asked_for(
    well_measured: Path, photos: Path, cli: Cli, tmp_path: Path
) -> None:
    words = (photos, "--coverage", "0.9", "--reject", "0.6", "--out")
    assert cli("predict", well_measured, *words, tmp_path / "parts").code == 0
    assert cli("predict", well_measured, *words, tmp_path / "x.csv").code == 0
    assert (tmp_path / "parts" / "part-000000.csv").read_bytes() == (tmp_path / "x.csv").read_bytes()
    said = cli("predict", well_measured, photos, "--out", tmp_path / "parts")
    assert said.err.startswith(f"out={tmp_path / 'parts'}: its parts were made with coverage=0.9, not None; choose ")


def test_tables_of_paths_are_classified_like_their_images(run: Path, photos: Path, cli: Cli, tmp_path: Path) -> None:
    files = sorted((photos / "two words").iterdir())
    (tmp_path / "list.csv").write_text("path\n" + "".join(f'"{file}"\n' for file in files), encoding="utf-8")
    assert cli("predict", run, tmp_path / "list.csv") == cli("predict", run, photos / "two words")


def test_unfinished_run_is_reported(unfinished: Path, image: Path, cli: Cli) -> None:
    said = cli("predict", unfinished, image)
    assert said.code == 2
    assert "is not finished; continue it with" in said.err


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_sets_and_rejections_are_in_lines_tables_and_json(
    suffix: str, well_measured: Path, photos: Path, cli: Cli, tmp_path: Path
) -> None:
    words = (photos / "two words", "--coverage", "0.9", "--reject", "0.6")
    document = json.loads(cli("predict", well_measured, *words, "--json").out)
    assert {type(row["rejected"]) for row in document} == {bool}
    assert all(row["set"][0] == row["label"] for row in document)
    table = tmp_path / f"x{suffix}"
    assert cli("predict", well_measured, *words, "--out", table).code == 0
    for row, wanted in zip(_read(table), document, strict=True):
        assert next(csv.reader([row["set"]], delimiter=";")) == wanted["set"]
        assert str(row["rejected"]) == str(wanted["rejected"])
    lines = cli("predict", well_measured, *words).out.splitlines()
    for line, wanted in zip(lines, document, strict=True):
        end = f", set: {';'.join(wanted['set'])}{', rejected' if wanted['rejected'] else ''}"
        assert line.endswith(f"%){end}")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--coverage", "95"], "coverage=95.0: must be in (0, 1); did you mean 0.95?"),
        (["--coverage", "nan"], "coverage=nan: must be in (0, 1); 0.95 is usual"),
        (["--coverage", "95%"], "--coverage=95%: must be a number; see `vitreous predict --help`"),
        (["--coverage", "0.9", "--sets", "rasp"], "sets=rasp: must be one of lac, aps, raps, "),
        (["--sets", "lac"], "sets=lac: needs a coverage; add one, e.g. 0.95"),
        (["--reject", "0"], "reject=0.0: must be in (0, 1); 0.95 is usual"),
        (["--coverage", "0.9999"], "coverage=0.9999: needs 9,999 held-out images, "),
    ],
)
def test_coverage_or_accuracy_that_is_not_possible_is_reported_in_one_line(
    words: list[str], line: str, run: Path, image: Path, cli: Cli
) -> None:
    said = cli("predict", run, image, *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1


def test_model_file_without_its_run_cannot_predict_sets(run: Path, image: Path, cli: Cli, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes((run / "model.safetensors").read_bytes())
    said = cli("predict", moved, image, "--coverage", "0.9")
    assert said.code == 2
    assert said.err.startswith(f"run={moved}: has no outputs of held-out images, which coverage=0.9 needs; give the ")


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]


def test_tta_averages_over_views(run: Path, image: Path, cli: Cli) -> None:
    one, several = (json.loads(cli("predict", run, image, "--json", *words).out)[0] for words in ([], ["--tta", "3"]))
    assert one["probabilities"] != several["probabilities"]
    assert sum(several["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    said = cli("predict", run, image, "--tta", "77")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("tta=77: this model has ")
