"""Headlines: an accuracy comes with its baseline, and with the classes that are never predicted."""

from vitreous.training.fit.class_counts import ClassCounts
from vitreous.training.fit.evaluate import Score
from vitreous.use.evaluate.headline import accuracy_text, baseline_text, never_predicted_text


def _found(true: list[int], predicted: list[int], classes: tuple[str, ...]) -> dict[str, object]:
    counts = ClassCounts.of(classes, true, predicted)
    return Score(len(true), sum(counts.correct), 0.5, counts).as_dict()


def test_accuracy_that_only_repeats_the_largest_class_says_so() -> None:
    found = _found([0] * 4 + [1] * 93, [1] * 97, ("defect", "good"))
    assert accuracy_text(found).startswith("95.9% (93 of 97 images correct; 95% interval ")
    assert baseline_text(found) == (
        "no better than always predicting 'good', which reaches 95.9%; balanced accuracy (mean recall of the classes) "
        "50.0%"
    )
    assert never_predicted_text(found) == "1 class is never predicted: 'defect'"


def test_useful_accuracy_is_shown_with_its_baseline() -> None:
    found = _found([0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 2], ("a", "b", "c"))
    assert baseline_text(found) == (
        "always predicting 'b' would reach 50.0%; balanced accuracy (mean recall of the classes) 83.3%"
    )
    assert never_predicted_text(found) == ""


def test_run_of_an_older_version_has_no_baseline() -> None:
    found = Score(97, 93, 0.5).as_dict()
    assert baseline_text(found) == never_predicted_text(found) == ""


def test_many_and_long_names_stay_readable() -> None:
    classes = tuple(f"class {number} " + "x" * 200 for number in range(50))
    found = _found(list(range(50)), [0] * 50, classes)
    assert never_predicted_text(found, most=3).startswith("49 classes are never predicted: 'class 1 xxx")
    assert never_predicted_text(found, most=3).endswith(" and 46 more")
    assert len(baseline_text(found)) < 200
