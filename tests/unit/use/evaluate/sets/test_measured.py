"""What sets and rejecting are worth on held-out images, compared with loops over images."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.unit.use.evaluate.sets.made import made_outputs

from vitreous.use.evaluate.outputs import Outputs
from vitreous.use.evaluate.sets.limits import contained, fit_limits, nonconformity
from vitreous.use.evaluate.sets.measured import measure_rejecting, measure_sets, rejecting_text, sets_text, usual

BOTH = {"val": made_outputs(400, 1), "test": made_outputs(150, 2)}


def probabilities(outputs: Outputs) -> np.ndarray:
    return outputs.logits.softmax(dim=1).double().numpy()


# Sets.


def test_validation_images_choose_and_test_images_measure() -> None:
    for found in measure_sets(BOTH):
        kind, level = found["kind"], found["level"]
        score = kind.removesuffix("-per-class")
        limits = fit_limits(
            kind, level, nonconformity(probabilities(BOTH["val"]), score), BOTH["val"].numbers, BOTH["val"].classes
        )
        sets = contained(nonconformity(probabilities(BOTH["test"]), score), limits)
        true = BOTH["test"].numbers
        covered = [bool(sets[image, number]) for image, number in enumerate(true)]
        sizes = [int(row.sum()) for row in sets]
        assert found["coverage"] == pytest.approx(sum(covered) / 150)
        assert found["mean_size"] == pytest.approx(sum(sizes) / 150)
        for size, pair in enumerate(found["by_size"], start=1):
            assert pair == [sum(c for c, s in zip(covered, sizes, strict=True) if s == size), sizes.count(size)]
        for number, pair in enumerate(found["by_class"]):
            own = [c for c, k in zip(covered, true, strict=True) if k == number]
            assert pair == [sum(own), len(own)]
        assert (found["num_images"], found["spread"]) == (150, None)


def test_all_kinds_are_measured_at_the_levels_with_enough_images() -> None:
    kinds = {"lac", "aps", "raps", "lac-per-class", "aps-per-class", "raps-per-class"}
    found = {(of["kind"], of["level"]) for of in measure_sets(BOTH)}
    assert {kind for kind, _ in found} == kinds
    assert {level for kind, level in found if kind == "lac"} == {0.9, 0.95, 0.99}
    few = measure_sets({"val": made_outputs(30, 3), "test": made_outputs(40, 4)})
    assert {of["level"] for of in few if of["kind"] == "lac"} == {0.9, 0.95}
    assert measure_sets({"val": made_outputs(8, 3), "test": made_outputs(40, 4)}) == []


@pytest.mark.parametrize("split", ["val", "test"])
def test_random_halves_measure_if_there_is_only_one_split(split: str) -> None:
    (found,) = usual(measure_sets({split: made_outputs(240, 5)}))
    assert (found["level"], found["num_images"]) == (0.95, 120)
    low, high = found["spread"]
    assert low < found["coverage"] < high
    assert sum(count for _, count in found["by_size"]) == 20 * 120
    assert found == usual(measure_sets({split: made_outputs(240, 5)}))[0]


@pytest.mark.parametrize("outputs", [
    {},
    {"val": replace(made_outputs(40, 1), thresholds=(0.5,) * 4, true=torch.zeros(40, 4))},
    {"val": made_outputs(0, 1)},
])  # fmt: skip
def test_nothing_is_measured_without_images_with_one_class(outputs: dict[str, Outputs]) -> None:
    assert measure_sets(outputs) == []
    assert measure_rejecting(outputs) is None


def test_scores_are_json_and_their_text_has_the_numbers() -> None:
    (found,) = usual(measure_sets(BOTH))
    json.dumps(found, allow_nan=False)
    low, high = found["expected"]
    text = sets_text(found)
    assert text.startswith(f"sets for 95% coverage contain the class of {found['coverage']:.1%} of 150 images; ")
    assert f"{low:.1%} to {high:.1%} expected by chance" in text
    assert text.endswith(f"one class for {found['by_size'][0][1] / 150:.1%}")


def test_text_says_if_a_coverage_is_not_chance() -> None:
    (found,) = usual(measure_sets(BOTH))
    assert ", so this is not chance; " in sets_text(found | {"coverage": found["expected"][0] - 0.01})
    assert "; it may be higher, as sets have the predicted class; " in sets_text(found | {"coverage": 1.0})
    certain = {"val": made_outputs(300, 1, spread=30.0), "test": made_outputs(300, 2, spread=30.0)}
    assert "; it may be higher, " in sets_text(usual(measure_sets(certain))[0])


def test_with_two_classes_the_text_advises_rejecting() -> None:
    two = {"val": made_outputs(60, 1, classes=("no", "yes")), "test": made_outputs(60, 2, classes=("no", "yes"))}
    assert sets_text(usual(measure_sets(two))[0]).endswith("; with two classes, rejecting is clearer")


def test_halves_are_described_in_the_text() -> None:
    (found,) = usual(measure_sets({"val": made_outputs(240, 5)}))
    low, high = found["spread"]
    assert f" of 120 images ({low:.1%} to {high:.1%} in 90% of random halves); " in sets_text(found)


def test_new_images_get_the_temperature_of_the_model_and_so_do_those_that_choose() -> None:
    warm = {split: replace(of, temperature=3.0, fitted_temperature=split == "val") for split, of in BOTH.items()}
    divided = {split: replace(of, logits=of.logits / 3.0) for split, of in BOTH.items()}
    assert measure_sets(warm) == measure_sets(divided)


# Rejecting.


def naive_curve(confidence: np.ndarray, is_correct: np.ndarray) -> list[float]:
    """Return the accuracy of the k most confident predictions, averaged over all orders of ties."""
    curves = []
    for order in itertools.permutations(range(len(confidence))):
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order)):
            curves.append(np.cumsum(is_correct[list(order)]) / np.arange(1, len(order) + 1))
    return np.mean(curves, axis=0).tolist()


def test_curve_is_the_mean_over_all_orders_of_ties() -> None:
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 1.0], [1.0, 0.0], [3.0, 0.0], [0.0, 0.5]])
    true = torch.tensor([0, 1, 1, 0, 0, 0, 1])
    found = measure_rejecting({"val": Outputs("made", ("no", "yes"), logits, true)})
    assert found is not None
    confidence, is_correct = probabilities_of(logits), (logits.argmax(dim=1) == true).double().numpy()
    wanted = naive_curve(confidence, is_correct)
    np.testing.assert_allclose([1 - risk for _, risk in found["curve"]], wanted)
    np.testing.assert_allclose([share for share, _ in found["curve"]], np.arange(1, 8) / 7)
    assert found["aurc"] == pytest.approx(np.mean([1 - accuracy for accuracy in wanted]))
    best = sorted(is_correct, reverse=True)
    least = np.mean([1 - sum(best[:k]) / k for k in range(1, 8)])
    assert found["excess_aurc"] == pytest.approx(found["aurc"] - least)


def probabilities_of(logits: torch.Tensor) -> np.ndarray:
    return logits.softmax(dim=1).max(dim=1).values.double().numpy()


def test_excess_is_zero_if_all_mistakes_are_the_least_certain() -> None:
    logits = torch.stack([torch.linspace(0.1, 6, 50), torch.zeros(50)], dim=1)
    true = (torch.arange(50) < 12).long()
    found = measure_rejecting({"test": Outputs("made", ("no", "yes"), logits, true)})
    assert found is not None
    assert found["excess_aurc"] == pytest.approx(0, abs=1e-12)
    assert found["without"][0.5] == 1.0
    assert found["accuracy"] == pytest.approx(38 / 50)


def test_validation_images_choose_the_confidence_and_test_images_measure_the_accuracy() -> None:
    large = {"val": made_outputs(900, 6), "test": made_outputs(500, 7)}
    found = measure_rejecting(large)
    assert found is not None
    assert list(found["kept"])[:2] == [0.8, 0.9]
    for target, kept in found["kept"].items():
        confidence = probabilities_of(large["test"].logits)
        stays = confidence > kept["probability_above"]
        right = (large["test"].predicted == large["test"].numbers)[stays]
        assert kept["share"] == pytest.approx(stays.mean())
        assert kept["accuracy"] == pytest.approx(right.mean())
        assert kept["accuracy"] > target - 0.05
    single = measure_rejecting({"val": large["val"]})
    assert single is not None
    assert {kept["accuracy"] for kept in single["kept"].values()} == {None}
    assert [kept["probability_above"] for kept in single["kept"].values()] == [
        kept["probability_above"] for kept in found["kept"].values()
    ]


def test_curve_of_many_images_has_at_most_200_points_and_ends_with_all_of_them() -> None:
    found = measure_rejecting({"val": made_outputs(900, 6)})
    assert found is not None
    json.dumps(found, allow_nan=False)
    assert len(found["curve"]) == 200
    assert found["curve"][-1] == pytest.approx([1.0, 1 - found["accuracy"]])
    assert found["curve"][0][0] == pytest.approx(1 / 900)


def test_text_of_rejecting_has_the_highest_accuracy_that_is_guaranteed() -> None:
    found = measure_rejecting({"val": made_outputs(900, 6), "test": made_outputs(500, 7)})
    assert found is not None
    best = max(found["kept"])
    text = rejecting_text(found)
    assert text.startswith(f"accuracy {found['without'][0.1]:.1%} without the least certain 10%, ")
    assert text.endswith(f"; --reject {best:g} keeps {found['kept'][best]['share']:.1%}")
    assert rejecting_text(found | {"kept": {}}).endswith("without the least certain 50%")
