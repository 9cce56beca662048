"""`run.predict(images, coverage=…, reject=…)`: sets and rejected predictions, and requests that cannot be met."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.use.evaluate.sets.made import made_outputs

from vitreous.errors import ConfigError, DamagedFileError, NotARunError, UnknownNameError
from vitreous.training.folder.outputs import SplitOutputs, read_outputs, write_outputs
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.evaluate.sets.decide import decisions
from vitreous.use.evaluate.sets.measured import measure_sets
from vitreous.use.predict.predictor import Prediction
from vitreous.use.predict.table import join_names, write_table
from vitreous.use.run import Run

NO_OUTPUTS = "has no outputs of held-out images, which coverage=0.9 needs; give the folder of a finished run"


def with_outputs(run: Run, num_images: int, seed: int = 1, spread: float = 3.0) -> Run:
    """Replace the outputs of a run by made ones of this number of validation images."""
    made = made_outputs(num_images, seed, spread=spread, classes=run.classes)
    logits = made.logits * float(run.metadata["temperature"])
    write_outputs(RunFolder(run.path).outputs, {"val": SplitOutputs(logits, made.true, np.arange(num_images))})
    return run


def test_sets_of_the_test_images_cover_what_evaluate_says(run: Run, photos: Path) -> None:
    outputs = outputs_of_run(RunFolder(run.path))
    with (run.path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = [photos / row["path"] for row in rows]
    for found in measure_sets(outputs):
        if found["level"] == 0.9:
            predictions = run.predict(images, coverage=0.9, sets=found["kind"])
            sets = [prediction.set or () for prediction in predictions]
            assert np.mean([row["true"] in chosen for row, chosen in zip(rows, sets, strict=True)]) == found["coverage"]
            assert np.mean([len(chosen) for chosen in sets]) == pytest.approx(found["mean_size"])


def test_set_begins_with_the_predicted_class_and_is_sorted_by_probability(run: Run, photos: Path) -> None:
    for prediction in run.predict(photos, coverage=0.95):
        assert prediction.set is not None
        assert prediction.set[0] == prediction.label
        by_name = dict(zip(run.classes, prediction.probabilities, strict=True))
        shown = [by_name[name] for name in prediction.set]
        assert shown == sorted(shown, reverse=True)
        assert prediction.rejected is None


def test_without_a_request_predictions_have_neither(run: Run, photos: Path) -> None:
    assert {(prediction.set, prediction.rejected) for prediction in run.predict(photos)} == {(None, None)}


def test_predictions_up_to_the_limit_are_rejected_and_sets_are_independent_of_that(own_run: Run, photos: Path) -> None:
    with_outputs(own_run, 400)
    only, both = own_run.predict(photos, reject=0.9), own_run.predict(photos, reject=0.9, coverage=0.9)
    assert [prediction.rejected for prediction in only] == [prediction.rejected for prediction in both]
    assert [prediction.set for prediction in both] == [p.set for p in own_run.predict(photos, coverage=0.9)]
    limits = [p.probability for p in only if p.rejected], [p.probability for p in only if not p.rejected]
    assert limits[0]
    assert max(limits[0]) < min(limits[1], default=1.0)


def test_unreadable_image_has_an_empty_set_and_is_rejected(own_run: Run, broken_png: Path) -> None:
    (found,) = with_outputs(own_run, 400).predict(broken_png, coverage=0.9, reject=0.8)
    assert (found.set, found.rejected, found.label) == ((), True, "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coverage": 95}, "coverage=95: must be in (0, 1); did you mean 0.95?"),
        ({"coverage": 99.5}, "coverage=99.5: must be in (0, 1); did you mean 0.995?"),
        ({"coverage": 0}, "coverage=0: must be in (0, 1); 0.95 is usual"),
        ({"coverage": 1.0}, "coverage=1.0: must be in (0, 1); 0.95 is usual"),
        ({"coverage": -0.5}, "coverage=-0.5: must be in (0, 1); 0.95 is usual"),
        ({"coverage": float("nan")}, "coverage=nan: must be in (0, 1); 0.95 is usual"),
        ({"coverage": "0.9"}, "coverage='0.9': must be a number in (0, 1); 0.95 is usual"),
        ({"coverage": True}, "coverage=True: must be a number in (0, 1); 0.95 is usual"),
        ({"reject": 90}, "reject=90: must be in (0, 1); did you mean 0.9?"),
        ({"reject": 1}, "reject=1: must be in (0, 1); 0.95 is usual"),
        ({"coverage": 0.9, "sets": "apps"}, "sets=apps: must be one of lac, aps, raps, "),
        ({"sets": "aps"}, "sets=aps: needs a coverage; add one, e.g. 0.95"),
        ({"coverage": 0.999}, "coverage=0.999: needs 999 held-out images, "),
    ],
)
def test_request_that_breaks_a_rule_is_reported_in_one_line(
    given: dict[str, object], message: str, run: Run, photos: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        run.predict(photos, **given)
    assert str(caught.value).startswith(message)


def test_unknown_kind_of_sets_is_an_unknown_name(run: Run, photos: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"or none; did you mean raps\?$"):
        run.predict(photos, coverage=0.9, sets="rap")


def test_accuracy_that_cannot_be_guaranteed_names_one_that_can(own_run: Run, photos: Path) -> None:
    with_outputs(own_run, 60)
    with pytest.raises(ConfigError) as caught:
        own_run.predict(photos, reject=0.995)
    start = "reject=0.995: this model and 60 held-out images cannot guarantee this accuracy; use at most "
    assert str(caught.value).startswith(start)
    best = float(str(caught.value).removeprefix(start))
    own_run.predict(photos, reject=best)
    with pytest.raises(ConfigError):
        own_run.predict(photos, reject=best + 0.01)


def test_model_that_is_always_wrong_can_guarantee_nothing(own_run: Run, photos: Path) -> None:
    found = read_outputs(RunFolder(own_run.path).outputs)["val"]
    wrong = replace(found, labels=(found.logits.argmax(dim=1) + 1) % 3)
    write_outputs(RunFolder(own_run.path).outputs, {"val": wrong})
    with pytest.raises(ConfigError, match="cannot guarantee this accuracy; train a better model"):
        own_run.predict(photos, reject=0.5)


@pytest.mark.parametrize("case", ["model file", "older run", "no held-out images"])
def test_run_without_outputs_is_refused_and_the_message_says_what_to_give(
    case: str, lone_model: Path, own_run: Run, blind_run: Run, photos: Path
) -> None:
    RunFolder(own_run.path).outputs.unlink()
    run = {"model file": Run(lone_model), "older run": own_run, "no held-out images": blind_run}[case]
    with pytest.raises(NotARunError, match=f"^run=.*: {NO_OUTPUTS}"):
        run.predict(photos, coverage=0.9)


def test_damaged_outputs_are_reported(own_run: Run, photos: Path) -> None:
    RunFolder(own_run.path).outputs.write_bytes(b"damaged")
    with pytest.raises(DamagedFileError):
        own_run.predict(photos, coverage=0.9)


def test_model_with_several_labels_per_image_is_refused(run: Run) -> None:
    predictor = replace(run.predictor, thresholds=(0.5, 0.5, 0.5))
    with pytest.raises(ConfigError) as caught:
        decisions(run.path, predictor, 0.9, None, 0.8)
    assert str(caught.value) == (
        "coverage=0.9, reject=0.8: needs a model that predicts one class per image, not several; leave it out"
    )


def test_average_over_views_is_refused_because_the_limits_are_for_one_view(run: Run, photos: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run.predict(photos, tta=2, coverage=0.9)
    assert (
        str(caught.value) == "coverage=0.9: the limits are for one view of an image, not for an average; leave out tta"
    )
    assert run.predict(photos, tta=1, coverage=0.9)[0].set
    assert run.predict(photos, tta=2)[0].set is None


@pytest.mark.parametrize("names", [
    (), ("cat",), ("cat", "dog"), ("a;b", "c"), ('say "x"', "d;e;"), ("two\nlines", "cr\rname", " blank "), ("ü", "猫"),
])  # fmt: skip
def test_joined_names_are_read_back_by_a_csv_reader(names: tuple[str, ...]) -> None:
    assert [tuple(row) for row in csv.reader([join_names(names)], delimiter=";")] == [names]


def test_table_has_the_columns_that_were_asked_for(tmp_path: Path) -> None:
    plain = Prediction("a.png", "a;b", 0.75, (0.75, 0.25), labels=("a;b",))
    cases = {(): plain, ("set",): replace(plain, set=("a;b", "c")), ("rejected",): replace(plain, rejected=False)}
    for extra, prediction in cases.items():
        unreadable = Prediction("b.png", "", 0.0, (), "broken", set=() if extra == ("set",) else None,
                                rejected=True if extra == ("rejected",) else None)  # fmt: skip
        write_table(tmp_path / "x.csv", [prediction, unreadable], ("a;b", "c"))
        with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["path", "predicted", "probability", "error", *extra, "p_a;b", "p_c"]
        assert [rows[0].get("set"), rows[1].get("set")] == (['"a;b";c', ""] if extra == ("set",) else [None, None])
        assert [row.get("rejected") for row in rows] == (["False", "True"] if extra == ("rejected",) else [None, None])


def test_copied_model_in_its_folder_is_not_confused_with_another(run: Run, tmp_path: Path, photos: Path) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    assert Run(copy).predict(photos, coverage=0.9) == run.predict(photos, coverage=0.9)


def test_set_of_a_batch_is_that_of_each_image(run: Run, photos: Path) -> None:
    image = next(photos.rglob("*.png"))
    together = next(p for p in run.predict(photos, coverage=0.9) if p.image == str(image))
    assert run.predict(image, coverage=0.9)[0].set == together.set
