"""Proposed corrections: one row for each image or class, and a file that fits the data that it was made for."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitreous.data.corrections import Correction, corrected, read_corrections, write_corrections
from vitreous.data.doctor.examine import examine
from vitreous.data.doctor.mislabeled import LabelDoubts
from vitreous.data.sources import open_source
from vitreous.data.survey.facts import survey
from vitreous.errors import ConfigError
from vitreous.training.folder.records import ignore
from vitreous.use.doctor.examiner import DataReport, examine_data
from vitreous.use.doctor.proposals import propose, write_proposals
from vitreous.use.inspect import DataOptions, inspect


@pytest.fixture
def data(photos: Path, tmp_path: Path) -> Path:
    """A copy of the photos in given splits, with a copy across splits, one across classes and an exact copy."""
    root = tmp_path / "set"
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        target = root / ("test" if number % 4 == 0 else "train") / path.parent.name.replace('<b>&"', "odd") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    train = sorted((root / "train" / "odd").iterdir())
    shutil.copy(train[0], root / "test" / "odd" / "leak.png")
    shutil.copy(train[1], root / "train" / "odd" / "zz again.png")
    return root


@pytest.fixture
def report(data: Path) -> DataReport:
    return examine_data(str(data), ignore)


def with_doubts(report: DataReport, doubts: LabelDoubts) -> DataReport:
    return replace(report, examination=replace(report.examination, doubts=doubts))


def doubts_of(report: DataReport, position: int, label: int, **fields: object) -> LabelDoubts:
    return replace(
        report.examination.doubts, positions=np.array([position]), likely_classes=np.array([label]),
        probabilities=np.array([0.876]), **fields,
    )  # fmt: skip


def test_copies_are_moved_to_train_or_dropped(report: DataReport) -> None:
    rows = {row.path: row for row in propose(report)}
    leak, again = rows["test/odd/leak.png"], rows["train/odd/zz again.png"]
    assert (leak.label, leak.action, leak.to) == ("odd", "split:train", "")
    assert leak.reason.startswith("a copy of train/odd/")
    assert (again.label, again.action) == ("odd", "drop")
    assert again.reason.startswith("a copy of ")


def test_doubtful_label_becomes_a_row_with_the_likely_class_and_its_probability(report: DataReport) -> None:
    index = int(report.examination.summaries.indices[5])
    source = report.survey.source
    label = (int(source.labels[index]) + 1) % 3
    rows = propose(with_doubts(report, doubts_of(report, 5, label)))
    row = next(row for row in rows if row.path == source.key(index))
    name = source.classes[label]
    assert row == Correction(
        source.key(index), source.classes[source.labels[index]], "relabel", name, f"looks like {name}", "0.88"
    )


def test_smaller_of_two_confused_classes_is_merged_into_the_larger_one(report: DataReport) -> None:
    counts, classes = report.survey.facts.class_counts, report.survey.source.classes
    less, more = sorted((0, 2), key=lambda label: counts[label])
    rows = propose(with_doubts(report, doubts_of(report, 5, 1, confused=((0, 2),))))
    (row,) = (row for row in rows if row.action == "merge")
    assert row[:4] == ("", classes[less], "merge", classes[more])


def test_proposals_are_sorted_and_fit_the_data(report: DataReport, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "fix.csv"
    write_proposals(path, with_doubts(report, doubts_of(report, 5, 1)))
    rows = list(read_corrections(path).values())
    assert [row.action for row in rows] == sorted(
        (row.action for row in rows), key=("drop", "relabel", "split:train").index
    )
    assert len({row.path for row in rows}) == len(rows) >= 3
    surveyed = survey(corrected(open_source(data), path))
    assert not any("also in train, byte for byte" in note for note in surveyed.facts.notes)
    with path.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["path", "label", "action", "to", "reason", "confidence"]


def test_earlier_corrections_are_kept_and_their_images_not_proposed_again(data: Path, tmp_path: Path) -> None:
    earlier, later = tmp_path / "fix.csv", tmp_path / "more.csv"
    rows = [("test/odd/leak.png", "odd", "keep", "", "seen", ""), ("", "Äpfel", "merge", "odd", "", "")]
    write_corrections(earlier, rows)
    surveyed = survey(corrected(open_source(data), earlier))
    write_proposals(later, DataReport(surveyed, examine(surveyed)))
    found = list(read_corrections(later).values())
    assert [tuple(row) for row in found[:2]] == rows
    assert [row.path for row in found].count("test/odd/leak.png") == 1
    assert all(row.label == row.path.split("/")[1] for row in found if row.path)  # the class in the data
    corrected(open_source(data), later)


def test_existing_file_is_never_overwritten(report: DataReport, tmp_path: Path) -> None:
    path = tmp_path / "fix.csv"
    path.write_text("edited")
    with pytest.raises(
        ConfigError, match=r"^fix=.*fix.csv: exists, and may have been edited; choose another name, or "
    ):
        write_proposals(path, report)
    assert path.read_text() == "edited"


@pytest.mark.parametrize(
    ("name", "message"),
    [("fix.txt", r"ends in .txt; use one of .csv$"), ("gone/fix.csv", r"the folder .*gone does not exist; create it ")],
)
def test_impossible_path_is_refused(report: DataReport, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^fix=.*{name}: {message}"):
        write_proposals(tmp_path / name, report)


def test_several_labels_per_image_are_refused_before_images_are_read(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "tags.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        images = sorted(photos.rglob("*.png"))
        csv.writer(file).writerows(
            [("path", "label"), *((path, "a;b" if n % 2 else "a") for n, path in enumerate(images))]
        )
    events: list[str] = []
    with pytest.raises(ConfigError, match=r"several labels per image cannot be corrected in a file; leave it out$"):
        inspect(str(table), lambda kind, fields: events.append(kind), DataOptions(fix=tmp_path / "fix.csv"))
    assert events == []  # no image was read
