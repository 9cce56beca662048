"""The order of classes: by value if all names are numbers, else by character; existing runs keep theirs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitreous.data.sources import ArraySource, open_source
from vitreous.data.sources.spelling import in_class_order


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ("0 180 270 90", "0 90 180 270"),
        ("10 2 1", "1 2 10"),
        ("-5 -10 3", "-10 -5 3"),
        ("0.5 10.25 2.5", "0.5 2.5 10.25"),
        ("1 01 001", "001 01 1"),
        ("class10 class2", "class10 class2"),  # as before: these are not numbers
        ("10 2 many", "10 2 many"),
        ("banana apple Äpfel", "apple banana Äpfel"),
    ],
)
def test_numbers_are_ordered_by_value_and_names_by_character(names: str, order: str) -> None:
    assert in_class_order(names.split()) == order.split()


@given(st.sets(st.text(max_size=5), max_size=8))
def test_order_changes_only_if_all_names_are_numbers(names: set[str]) -> None:
    if in_class_order(names) != sorted(names):
        assert [float(name) for name in in_class_order(names)] == sorted(map(float, names))


def test_folders_named_by_numbers_are_in_order(tmp_path: Path) -> None:
    for name in ("0", "90", "180", "270"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), int(name) % 256).save(tmp_path / name / "a.png")
    source = open_source(str(tmp_path))
    assert source.classes == ("0", "90", "180", "270")
    assert all(f"/{source.classes[label]}/" in source.describe(i) for i, label in enumerate(source.labels))


def test_classes_can_be_put_in_the_order_of_an_existing_run() -> None:
    images = np.zeros((4, 2, 2), dtype=np.uint8)
    source = ArraySource(
        name="x", classes=("0", "90", "180"), images=images, labels=np.array([2, 0, 1, 1]), splits=[""] * 4
    )
    source.reorder_classes(("0", "180", "90"))
    assert source.classes == ("0", "180", "90")
    assert source.labels.tolist() == [1, 0, 2, 2]
    source.reorder_classes(("0", "180"))  # other classes: the data has changed, which the fingerprint reports
    assert source.classes == ("0", "180", "90")
