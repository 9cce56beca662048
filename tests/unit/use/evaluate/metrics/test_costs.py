"""Decisions by cost, compared with the expected cost of every class written out, and with a threshold by hand."""

import numpy as np
import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.use.evaluate.metrics.costs import decide, decide_labels, read_costs

CLASSES = ("good", "defect", "a:b", "a", "b:b", "x=1")


def draw(num_images: int, num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return calibrated probabilities and true classes."""
    draws = np.random.default_rng(seed)
    probabilities = draws.dirichlet(np.ones(num_classes), size=num_images)
    return probabilities, (probabilities.cumsum(axis=1) < draws.random((num_images, 1))).sum(axis=1)


def test_the_class_with_the_least_expected_cost_is_predicted() -> None:
    probabilities, true = draw(200, 4)
    costs = {(0, 1): 20.0, (2, 3): 0.0, (3, 0): 7.5}
    found = decide(costs, probabilities, true, probabilities.argmax(axis=1))
    matrix = 1 - np.eye(4)
    for (row, column), cost in costs.items():
        matrix[row, column] = cost
    for image, row in enumerate(probabilities):
        expected = [sum(row[actual] * matrix[actual, called] for actual in range(4)) for called in range(4)]
        assert found["predicted"][image] == np.argmin(expected)
    assert found["cost_before"] == pytest.approx(matrix[true, probabilities.argmax(axis=1)].mean())
    assert found["cost_after"] == pytest.approx(matrix[true, found["predicted"]].mean())
    low, high = found["interval_95"]
    assert low < found["cost_after"] - found["cost_before"] < high
    assert high < 0, "calibrated probabilities must save costs on 200 images"
    assert found["threshold"] is None


def test_the_interval_of_the_difference_is_that_of_drawn_images() -> None:
    probabilities, true = draw(120, 3, seed=5)
    before = probabilities.argmax(axis=1)
    found = decide({(0, 1): 9.0}, probabilities, true, before)
    matrix = np.array([[0, 9, 1], [1, 0, 1], [1, 1, 0]])
    differences = matrix[true, found["predicted"]] - matrix[true, before]
    draws = np.random.default_rng(1)
    means = [differences[draws.integers(120, size=120)].mean() for _ in range(4_000)]
    np.testing.assert_allclose(found["interval_95"], np.quantile(means, (0.025, 0.975)), atol=0.05)


def test_two_classes_have_a_threshold_at_which_both_decisions_cost_the_same() -> None:
    probabilities, true = draw(500, 2)
    found = decide({(1, 0): 20.0}, probabilities, true, probabilities.argmax(axis=1))
    assert found["threshold"] == pytest.approx([20 / 21, 1 / 21])
    np.testing.assert_array_equal(found["predicted"] == 1, probabilities[:, 1] > 1 / 21)
    assert decide({(1, 0): 0.0, (0, 1): 0.0}, probabilities, true, true)["threshold"] is None


def test_costs_of_1_change_no_prediction() -> None:
    probabilities, true = draw(100, 3)
    found = decide({(0, 1): 1.0}, probabilities, true, probabilities.argmax(axis=1))
    np.testing.assert_array_equal(found["predicted"], probabilities.argmax(axis=1))
    assert (found["cost_before"], found["interval_95"]) == (found["cost_after"], [0.0, 0.0])


@pytest.mark.parametrize(
    ("given", "costs"),
    [
        (["defect:good=20"], {(1, 0): 20.0}),
        (["defect:good=20", "good:defect=0.5"], {(1, 0): 20.0, (0, 1): 0.5}),
        ("defect:good=1e3", {(1, 0): 1000.0}),
        (["x=1:a:b=2"], {(5, 2): 2.0}),  # names with both characters
        ({("defect", "good"): 20}, {(1, 0): 20.0}),
        ({("a:b", "b:b"): np.float32(2)}, {(2, 4): 2.0}),
        ((), {}),
    ],
)
def test_costs_are_read_by_the_names_of_the_classes(given: object, costs: dict[tuple[int, int], float]) -> None:
    assert read_costs(given, CLASSES) == costs  # type: ignore[arg-type]


FORM = (
    "must be two classes and a number; write TRUE:PREDICTED=COST, e.g. defect:good=20, or in Python "
    "{(true, predicted): 20}"
)
RULE = "must be a number from 0 to 1e+12, given once, for two different classes; correct it, or leave it out"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["defect:good"], f"cost='defect:good': {FORM}"),
        (["defect=20"], f"cost='defect=20': {FORM}"),
        (["defect:good=many"], f"cost='defect:good=many': {FORM}"),
        (["defect:good="], f"cost='defect:good=': {FORM}"),
        (["a:b:b=2"], f"cost='a:b:b=2': {FORM}"),  # a and b:b, or a:b and b
        (5, f"cost=5: {FORM}"),
        ({"defect": 20}, f"cost=('defect', 20): {FORM}"),
        ({("defect", "good"): None}, f"cost=(('defect', 'good'), None): {FORM}"),
        (["defekt:good=20"], "cost='defekt': no such class; did you mean defect?"),
        (["defect:god=20"], "cost='god': no such class; did you mean good?"),
        (["defect:good=-3"], f"cost=defect:good=-3: {RULE}"),
        (["defect:good=nan"], f"cost=defect:good=nan: {RULE}"),
        (["defect:good=inf"], f"cost=defect:good=inf: {RULE}"),
        ({("defect", "good"): -0.5}, f"cost=defect:good=-0.5: {RULE}"),
        (["good:good=2"], f"cost=good:good=2: {RULE}"),
        (["defect:good=2", "defect:good=3"], f"cost=defect:good=3: {RULE}"),
    ],
)
def test_a_cost_that_is_not_valid_is_refused_in_one_line(given: object, message: str) -> None:
    classes = (*CLASSES, "b") if given == ["a:b:b=2"] else CLASSES
    with pytest.raises((ConfigError, UnknownNameError)) as caught:
        read_costs(given, classes)  # type: ignore[arg-type]
    assert str(caught.value) == message


LABEL_FORM = (
    "must be a label, a mistake and a number; write LABEL:miss=COST or LABEL:false-alarm=COST, or in Python "
    "{(label, 'miss'): 20}"
)


@pytest.mark.parametrize(
    ("given", "costs"),
    [
        (["defect:miss=20", "defect:false-alarm=0.5"], {(1, 0): 20.0, (1, 1): 0.5}),
        (["a:b:miss=2"], {(2, 0): 2.0}),
        ({("good", "false-alarm"): 3}, {(0, 1): 3.0}),
        ({("good", "miss"): 0}, {(0, 0): 0.0}),  # the same number of label and mistake
    ],
)
def test_costs_of_labels_are_read_by_the_names_of_labels_and_mistakes(given: object, costs: object) -> None:
    assert read_costs(given, CLASSES, are_labels=True) == costs  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["defect=20"], f"cost='defect=20': {LABEL_FORM}"),
        (["defect:good=20"], "cost='good': no such mistake; use one of false-alarm, miss"),
        (["defect:mis=20"], "cost='mis': no such mistake; did you mean miss?"),
        (["defekt:miss=20"], "cost='defekt': no such label; did you mean defect?"),
        (["defect:miss=-1"], "cost=defect:miss=-1: must be a number from 0 to 1e+12, given once; correct it, or"),
        (["defect:miss=1", "defect:miss=2"], "cost=defect:miss=2: must be a number from 0 to 1e+12, given once; "),
    ],
)
def test_a_cost_of_a_label_that_is_not_valid_is_refused_in_one_line(given: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_costs(given, CLASSES, are_labels=True)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_each_label_is_decided_like_a_problem_of_two_classes_and_their_costs_are_added() -> None:
    draws = np.random.default_rng(3)
    probabilities = draws.random((300, 3))
    true, predicted = draws.random((300, 3)) < probabilities, probabilities >= (0.3, 0.5, 0.9)
    costs = {(0, 0): 20.0, (2, 1): 3.0, (2, 0): 0.5}
    found = decide_labels(costs, probabilities, true, predicted)
    alone = [
        decide(
            {(0, 1): costs.get((label, 0), 1.0), (1, 0): costs.get((label, 1), 1.0)},
            np.stack([probabilities[:, label], 1 - probabilities[:, label]], axis=1),
            np.where(true[:, label], 0, 1), np.where(predicted[:, label], 0, 1),
        )
        for label in range(3)
    ]  # fmt: skip
    for name in ("cost_before", "cost_after"):
        assert found[name] == pytest.approx(sum(each[name] for each in alone))
    assert found["threshold"] == pytest.approx([each["threshold"][0] for each in alone])
    assert found["threshold"] == pytest.approx([1 / 21, 1 / 2, 3 / 3.5])
    low, high = found["interval_95"]
    assert low < found["cost_after"] - found["cost_before"] < high < 0


def test_labels_whose_mistakes_cost_nothing_keep_a_threshold() -> None:
    probabilities, true = np.array([[0.2, 0.7], [0.6, 0.4]]), np.array([[True, False], [False, True]])
    found = decide_labels({(0, 0): 0.0, (0, 1): 0.0}, probabilities, true, probabilities >= 0.5)
    assert found == {"cost_before": 1.0, "cost_after": 1.0, "interval_95": [0.0, 0.0], "threshold": [0.5, 0.5]}
