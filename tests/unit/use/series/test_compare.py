"""compare: the paired difference of two runs and its interval, against the formulas."""

import csv
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vitreous as vt
from vitreous.errors import DamagedFileError, DataError, NotARunError
from vitreous.recipe.files import read_config, write_config
from vitreous.use.evaluate.paired import paired_interval
from vitreous.use.run import Run
from vitreous.use.series.compare import compare, mcnemar

Fake = Callable[..., Path]
NEW = ("path", "true", "predicted", "probability")
OLD = ("image", "label", "called", "probability")


@pytest.fixture
def fake(run: Run, tmp_path: Path) -> Fake:
    """Make a run folder with given correct and wrong predictions, on the same images in every folder."""

    def make(
        name: str, right: Sequence[int], *, first: int = 0, prefix: str = "my photos/", columns: Sequence[str] = NEW
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("model.safetensors", "config.yaml"):
            shutil.copy(run.path / file, folder)
        with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            rows = (
                (f"{prefix}{first + i}.png", "cat", "cat" if is_right else "dog", 0.5)
                for i, is_right in enumerate(right)
            )
            writer.writerows(rows)
        return folder

    return make


@pytest.mark.parametrize(("both", "only_a", "only_b", "neither"), [(30, 4, 13, 8), (5, 0, 0, 2), (90, 11, 2, 7)])
def test_interval_of_two_runs_equals_bonett_and_price(both: int, only_a: int, only_b: int, neither: int) -> None:
    n = both + only_a + only_b + neither
    p_b, p_a = (only_b + 1) / (n + 2), (only_a + 1) / (n + 2)
    half_width = 1.959963984540054 * math.sqrt((p_a + p_b - (p_b - p_a) ** 2) / (n + 2))
    found = paired_interval([0.0] * (both + neither) + [-1.0] * only_a + [1.0] * only_b)
    np.testing.assert_allclose(found, (p_b - p_a - half_width, p_b - p_a + half_width), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 3), (1, 9), (12, 4)])
def test_p_value_equals_two_tails_of_the_binomial_distribution(only_a: int, only_b: int) -> None:
    n, low = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(low + 1)) / 2**n
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail), abs=1e-12)


def test_interval_covers_the_true_difference_in_about_95_percent_of_cases() -> None:
    draw, hits = np.random.default_rng(0), 0
    for _ in range(400):
        differences = draw.choice([-1.0, 0.0, 1.0], size=120, p=[0.06, 0.8, 0.14])
        low, high = paired_interval(differences)
        hits += low <= 0.08 <= high
    assert 0.92 <= hits / 400 <= 0.985


def test_runs_are_compared_on_their_common_test_images(fake: Fake) -> None:
    a = fake("a", [1, 1, 1, 0, 0, 0, 1, 0])
    b = fake(
        "b", [0, 1, 1, 1, 1, 0, 0, 1], first=2, prefix="/elsewhere/my photos/"
    )  # images 2 to 9; 2 to 7 are in both
    found = compare(a, b)
    assert (found.num_images, found.num_images_a, found.num_images_b) == (6, 8, 8)
    assert (found.accuracy_a, found.accuracy_b) == pytest.approx((2 / 6, 4 / 6))
    assert found.difference == pytest.approx(2 / 6)
    assert (found.only_a, found.only_b) == (1, 3)  # only A: image 2; only B: images 3, 4 and 5
    assert found.interval_seeds_95 is None
    assert found.better is None


def test_run_whose_data_has_moved_is_compared_on_the_same_images(fake: Fake) -> None:
    a, b = fake("a", [1, 1, 0, 0]), fake("b", [1, 0, 1, 0])
    config = read_config(b / "config.yaml")
    write_config(b / "config.yaml", replace(config, data=replace(config.data, source="/new/place")))
    assert compare(a, b).num_images == 4


def test_clear_winner_is_found_on_either_side(fake: Fake) -> None:
    good, bad = fake("good", [1] * 60 + [0] * 5), fake("bad", [0] * 25 + [1] * 40)
    assert compare(good, bad).better == str(good)
    assert compare(bad, good).better == str(good)
    assert compare(good, bad).difference == -compare(bad, good).difference
    assert vt.compare(vt.Run(good), str(bad)).p_value == compare(good, bad).p_value


def test_run_does_not_differ_from_itself(run: Run) -> None:
    found = compare(run.path, run.path)
    low, high = found.interval_95
    assert (found.difference, found.only_a, found.only_b, found.p_value, found.better) == (0, 0, 0, 1.0, None)
    assert low == pytest.approx(-high)
    assert found.accuracy_a == pytest.approx(run.accuracy)
    assert found.as_dict()["better"] is None


def test_runs_that_cannot_be_compared_are_an_error(fake: Fake, blind_run: Run, run: Run, tmp_path: Path) -> None:
    a, b = fake("a", [1, 0, 1]), fake("b", [1, 0], first=7)
    with pytest.raises(
        DataError, match=r"a .*b: have no test image in common \(they have 3 and 2\); compare runs that were tested"
    ):
        compare(a, b)
    with pytest.raises(DataError, match=r"blind: has no test images; compare runs that have some$"):
        compare(blind_run.path, run.path)
    with pytest.raises(NotARunError, match=r"gone: does not exist; "):
        compare(a, tmp_path / "gone")
    (a / "predictions.csv").write_text("path,true,predicted\nx,cat,cat\nx,cat,dog\n", encoding="utf-8")
    with pytest.raises(DamagedFileError, match=r"predictions\.csv: several images have the same name, so they cannot "):
        compare(a, a)


def test_old_run_can_be_compared_with_a_new_one(fake: Fake) -> None:
    new, old = fake("new", [1, 0, 1, 1, 0], columns=NEW), fake("old", [1, 1, 1, 0, 0], columns=OLD)
    found = compare(new, old)
    assert (found.num_images, found.accuracy_a, found.accuracy_b) == (5, 3 / 5, 3 / 5)
    assert (found.only_a, found.only_b) == (1, 1)


def test_each_class_shows_what_changed(fake: Fake) -> None:
    found = compare(fake("a", [1, 1, 0, 1]), fake("b", [1, 0, 1, 0]))
    (change,) = found.classes
    assert (change.name, change.num_images, change.only_a, change.only_b) == ("cat", 4, 2.0, 1.0)
