"""Slices: planted weak groups are found, noise is not reported, and the statistics are SciPy's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest, fisher_exact
from tests.pictures import write_pictures

from vitreous.data.sources import open_source
from vitreous.errors import ConfigError, RunError
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.images.slices import LEAST_IMAGES, find_slices, slices_of_run, worse
from vitreous.use.predict.table import read_held_out
from vitreous.use.run import Run


def _random(seed: int, count: int = 400) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.bool_]]:
    """Return properties that have nothing to do with the answers."""
    draw = np.random.default_rng(seed)
    properties = {
        "brightness": draw.uniform(0, 255, count),
        "size": draw.integers(20, 2000, count),
        "folder": draw.choice(["a", "b", "c", "d", "e", ""], count),
        "camera": draw.choice(["x", "y"], count, p=[0.9, 0.1]),
    }
    return properties, draw.uniform(size=count) < 0.85


def test_at_most_five_percent_of_random_divisions_report_something() -> None:
    reported = sum(bool(worse(find_slices(*_random(seed)))) for seed in range(200))
    assert reported <= 0.05 * 200 + 6  # 2 standard errors of a binomial draw
    assert any(find_slices(*_random(0)))


def test_planted_weak_group_is_found_with_wrong_examples() -> None:
    properties, right = _random(3)
    dark = properties["brightness"] < np.quantile(properties["brightness"], 0.25)
    right &= ~(dark & (np.arange(len(right)) % 2 == 0))
    (found,) = worse(find_slices(properties, right))
    assert found.name.startswith("brightness ")
    assert found.num_images == int(dark.sum())
    assert found.accuracy == pytest.approx(right[dark].mean())
    assert found.rest_accuracy == pytest.approx(right[~dark].mean())
    interval = binomtest(int(right[dark].sum()), int(dark.sum())).proportion_ci(method="wilson")
    assert found.interval_95 == pytest.approx((interval.low, interval.high))
    assert len(found.examples) == 6
    assert all(dark[index] and not right[index] for index in found.examples)


def test_better_groups_are_listed_but_not_reported() -> None:
    folders = np.repeat(["good", "usual"], 60)
    right = np.concatenate([np.ones(60, dtype=bool), np.arange(60) % 2 == 0])
    found = find_slices({"folder": folders}, right)
    assert [group.name for group in worse(found)] == ["folder usual"]
    assert {group.name for group in found} == {"folder good", "folder usual"}


def test_p_values_are_fishers_corrected_by_holm() -> None:
    folders = np.repeat(["a", "b", "c"], [50, 60, 70])
    right = np.random.default_rng(5).uniform(size=180) < np.repeat([0.6, 0.8, 0.9], [50, 60, 70])
    single = {}
    for name in "abc":
        inside = folders == name
        table = [[(right & side).sum(), (~right & side).sum()] for side in (inside, ~inside)]
        single[f"folder {name}"] = fisher_exact(table).pvalue
    ordered = sorted(single, key=single.__getitem__)
    expected, highest = {}, 0.0
    for rank, name in enumerate(ordered):
        highest = max(highest, min(1.0, (3 - rank) * single[name]))
        expected[name] = highest
    found = find_slices({"folder": folders}, right)
    assert [group.name for group in found] == ordered
    assert {group.name: group.p_value for group in found} == pytest.approx(expected)


def test_small_groups_and_small_rests_are_not_tested() -> None:
    folders = np.repeat(["big", "small"], [200, LEAST_IMAGES - 1])
    assert find_slices({"folder": folders, "constant": np.ones(219)}, folders == "big") == []


# Runs.


@pytest.fixture(scope="module")
def photos_in_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images of two classes in folders; those in `night` are black, were taken by another camera and at night."""
    root = tmp_path_factory.mktemp("slices") / "set"
    for part, scale, month, hour in (("day", 1.0, "02", "13"), ("night", 0.15, "01", "02")):
        write_pictures(
            root / part, {"red": ((200, 60, 50), 30), "blue": ((60, 70, 220), 30)}, seed=7, name="{}.png", noise=9
        )
        for path in sorted((root / part).rglob("*.png")):
            exif = Image.Exif()
            exif[0x0110], exif[0x0132] = f"Camera {part}", f"2024:{month}:03 {hour}:30:00"
            target = root / "data" / path.parent.name / part / f"{path.stem}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).point([int(value * scale) for value in range(256)] * 3).save(target, exif=exif)
    return root / "data"


@pytest.fixture(scope="module")
def night_run(run_on: Callable[..., Run], photos_in_folders: Path) -> Run:
    keys = {"data.test_ratio": 0.6, "data.val_ratio": 0.1, "train.epochs": 30.0, "optim.lr": 0.01}
    return run_on(photos_in_folders, name="night", **keys)


def test_groups_of_a_run_have_the_properties_of_its_files(night_run: Run) -> None:
    found = slices_of_run(RunFolder(night_run.path))
    names = {group.name for group in found}
    assert {"folder night", "folder day", "camera Camera night", "time 0:00 to 6:00", "time 12:00 to 18:00"} <= names
    assert {"month 2024-01", "month 2024-02"} <= names
    stored = json.loads((night_run.path / "slices.json").read_text())
    assert [tuple(entry) for entry in stored] == [group._fields for group in found]
    assert stored[0]["p_value"] == found[0].p_value


def test_examples_of_a_run_are_wrong_images_of_the_group(night_run: Run) -> None:
    source = open_source(read_config(RunFolder(night_run.path).config).data.source)
    rows = read_held_out(RunFolder(night_run.path).predictions)
    wrong = {row.path for row in rows if row.true != row.predicted}
    for group in slices_of_run(RunFolder(night_run.path)):
        examples = {source.describe(number) for number in group.examples}
        assert examples <= wrong
        assert len(examples) == min(6, round(group.num_images * (1 - group.accuracy)))
        if group.name in ("folder day", "folder night"):
            assert all(Path(example).parent.name == group.name.split()[1] for example in examples)


def test_run_without_stored_predictions_is_refused(own_run: Run) -> None:
    (own_run.path / "outputs.safetensors").unlink()
    with pytest.raises(
        ConfigError, match=r"^slices=.*own: has no stored predictions of one class per image; leave out --slices, or "
    ):
        slices_of_run(RunFolder(own_run.path))


def test_renamed_files_are_refused(run_on: Callable[..., Run], photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "photos"))
    run = run_on(data, name="renamed", **{"train.epochs": 0.3})
    files = sorted((data / "two words").iterdir())
    files[0].rename(files[0].with_name("zzz.png"))
    with pytest.raises(RunError, match=r": images were renamed since, so .*; rename them back, or train again$"):
        slices_of_run(RunFolder(run.path))
