"""What is said about a model follows from the scores: the best method, ties, random orders, fixed orders."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from vitreous.use.explain.check.faithfulness import DECISIVE, Faithfulness, Row, compare_scores

LABELS = {"a": "LeGrad", "b": "occlusion", "random": "random order", "center": "center first"}


def faithfulness(
    shifts: dict[str, float], *, num_images: int = 60, similarity: float = 0.1, measure: str = DECISIVE
) -> Faithfulness:
    """Return the result for scores that differ by constant shifts, up to noise."""
    draw = np.random.default_rng(7)
    image = draw.normal(0, 3, num_images)
    columns: dict[str, NDArray[np.float64]] = {
        name: image + shift + draw.normal(0, 0.4, num_images) for name, shift in shifts.items()
    }
    methods = [name for name in shifts if name not in ("random", "center")]
    measured = compare_scores({DECISIVE: columns, measure: columns}, methods, seed=0)
    rows = [
        Row(name, LABELS[name], name not in methods, 2.0, similarity if name in methods else None, measured[name])
        for name in shifts
    ]
    return Faithfulness({"num_images": num_images, "seed": 0}, rows, {}, ["a note"])


def test_best_method_is_named_with_its_interval() -> None:
    found = faithfulness({"a": 1.0, "b": 2.0, "random": 0.0, "center": 0.5})
    assert found.best.name == "b"
    score = found.best.measured[DECISIVE].score
    assert score.low < score.mean < score.high
    verdict, certainty = found.sentences
    assert verdict == (
        f"occlusion is the most faithful of 2 methods for this model by token removal (area {score.mean:.2f}, 95% "
        f"interval {score.low:.2f} to {score.high:.2f}; random order "
        f"{found.rows[2].measured[DECISIVE].score.mean:.2f}); it is better than a random order, and distinguishable "
        "from every other method."
    )
    assert certainty == (
        f"With 60 images, a difference of less than {found.smallest_difference:.2f} cannot be detected."
    )
    assert 0.1 < found.smallest_difference < 0.3  # 1.96 * 0.4 * sqrt(2) / sqrt(60) = 0.14, more for two comparisons


def test_methods_that_are_not_distinguishable_are_named() -> None:
    verdict, _ = faithfulness({"a": 2.0, "b": 2.01, "random": 0.0, "center": 0.5}).sentences
    others = {"LeGrad", "occlusion"} - {verdict.split(" is ")[0]}
    assert verdict.endswith(f"it is better than a random order, but not distinguishable from {others.pop()}.")


def test_methods_that_are_not_better_than_chance_are_not_recommended() -> None:
    verdict, _ = faithfulness({"a": 0.0, "b": 0.02, "random": 0.01, "center": -1.0}).sentences
    assert verdict.endswith("it is not distinguishable from a random order, so do not trust any of them.")


def test_fixed_order_that_is_better_than_every_method_is_named() -> None:
    verdict, _ = faithfulness({"a": 1.0, "b": 0.5, "random": 0.0, "center": 3.0}).sentences
    assert verdict.endswith("but center first, which ignores the model, is better still.")


def test_single_method_is_not_called_the_best() -> None:
    verdict, _ = faithfulness({"a": 1.0, "random": 0.0, "center": 0.2}).sentences
    assert verdict.startswith("LeGrad was checked on this model by token removal (area ")
    assert verdict.endswith("and distinguishable from center first.")


def test_lower_is_better_for_deletion() -> None:
    found = faithfulness({"a": 1.0, "b": 2.0, "random": 3.0, "center": 0.5}, measure="deletion")
    by_name = {row.name: row.measured["deletion"] for row in found.rows}
    assert by_name["a"].below_best is None
    assert by_name["a"].above_random.low > 1.5
    assert by_name["b"].below_best is not None
    assert by_name["b"].below_best.low > 0.5


def test_chance_is_rarely_taken_for_a_method() -> None:
    wrong = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        columns = {name: draw.normal(size=40) for name in ("random", *"abcdefgh")}
        measured = compare_scores({DECISIVE: columns}, list("abcdefgh"), seed)
        wrong += any(measured[name][DECISIVE].above_random.low > 0 for name in "abcdefgh")
    assert wrong <= 10


def test_maps_that_ignore_the_weights_are_reported() -> None:
    found = faithfulness({"a": 1.0, "random": 0.0}, similarity=0.9)
    assert found.warnings == [
        "LeGrad hardly changes when the weights are shuffled (rank correlation 0.90), so it shows little of what the "
        "model has learned"
    ]
    assert faithfulness({"a": 1.0, "random": 0.0}, similarity=0.2).warnings == []


def test_json_has_what_the_screen_shows() -> None:
    found = faithfulness({"a": 1.0, "b": 2.0, "random": 0.0}, similarity=0.9)
    content = json.loads(json.dumps(found.as_dict()))
    assert (content["version"], content["best"], content["num_images"]) == (1, "b", 60)
    assert content["sentences"] == list(found.sentences)
    assert content["notes"] == ["a note", *found.warnings]
    assert content["methods"]["b"]["measured"][DECISIVE]["below_best"] is None
    assert content["methods"]["a"]["measured"][DECISIVE]["below_best"]["low"] > 0.5


def test_table_marks_the_best_method_and_has_no_cell_without_a_score() -> None:
    found = faithfulness({"a": 1.0, "b": 2.0, "random": 0.0})
    (_, patches) = found.tables()
    assert patches[0] == ("method", "tokens removed ↑", "shuffled weights", "forward passes")
    score = found.best.measured[DECISIVE].score
    assert patches[2] == ("occlusion", f"{score.mean:.2f} ± {score.half_width:.2f} *", "0.10", "2.0")
    assert patches[3][2:] == ("", "")


@pytest.mark.parametrize("name", ["a", "b"])
def test_differences_are_oriented(name: str) -> None:
    measured = {row.name: row.measured[DECISIVE] for row in faithfulness({"a": 1.0, "b": 2.0, "random": 0.0}).rows}
    assert measured[name].above_random.mean == pytest.approx({"a": 1.0, "b": 2.0}[name], abs=0.2)
