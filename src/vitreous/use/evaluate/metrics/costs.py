"""Costs of mistakes, calibrated probabilities -> the decision with the least expected cost, and what it saves.

Source: Elkan 2001, "The foundations of cost-sensitive learning".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.use.evaluate.metrics.scores import Numbers, Values
from vitreous.wording import printable, printable_value

Costs = Mapping[tuple[str, str], float] | Sequence[str]
"""(true class, predicted class) -> cost of that mistake; or texts such as `defect:good=20`. Other mistakes cost 1.

If images may have several labels, a mistake is a label and one of `MISTAKES`, as in `defect:miss=20`.
"""
MISTAKES = ("miss", "false-alarm")
"""An image has a label that is not predicted; a label is predicted that the image does not have."""

_LARGEST = 1e12
_GRAMMAR = "write TRUE:PREDICTED=COST, e.g. defect:good=20, or in Python {(true, predicted): 20}"
_LABEL_GRAMMAR = "write LABEL:miss=COST or LABEL:false-alarm=COST, or in Python {(label, 'miss'): 20}"


def decide(
    costs: Mapping[tuple[int, int], float], probabilities: Values, true: Numbers, predicted: Numbers
) -> dict[str, Any]:
    """Predict the class with the least expected cost from calibrated probabilities, `[n, classes]`.

    Nothing is fitted to the images. `true` and `predicted` are class indices, `[n]`; costs come from `read_costs`.

    Returns:
        What `_compare` finds; the classes `predicted` now, `[n]`; and with two classes the `threshold` on the
        probability of each, else None.
    """
    # If every mistake costs 1, the expected cost of a class is the probability of all others.
    expected = probabilities.sum(axis=1, keepdims=True) - probabilities
    for (actual, called), cost in costs.items():
        expected[:, called] += (cost - 1) * probabilities[:, actual]
    choices = np.stack([predicted, expected.argmin(axis=1)])
    each = (choices != true).astype(np.float64)
    for (actual, called), cost in costs.items():
        each[(choices == called) & (true == actual)] = cost
    false_alarms = [costs.get(pair, 1.0) for pair in ((1, 0), (0, 1))]
    total = sum(false_alarms) * (probabilities.shape[1] == 2)
    return _compare(each) | {
        "predicted": choices[1],
        "threshold": [cost / total for cost in false_alarms] if total else None,
    }


def decide_labels(
    costs: Mapping[tuple[int, int], float], probabilities: Values, true: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> dict[str, Any]:
    """Predict each label if that costs less than leaving it out, by calibrated probabilities, `[n, labels]`.

    `true` and `predicted` say which image has which label, `[n, labels]`; the cost of an image is the sum over its
    labels. Returns what `_compare` finds, and the `threshold` on the probability of each label, `[labels]`: the cost of
    a false alarm as a share of the costs of both mistakes.
    """
    miss, alarm = np.array([[costs.get((label, of), 1.0) for label in range(true.shape[1])] for of in range(2)])
    total = miss + alarm
    thresholds = np.divide(alarm, total, out=np.full_like(alarm, 0.5), where=total > 0)
    each = [(true & ~called) @ miss + (called & ~true) @ alarm for called in (predicted, probabilities >= thresholds)]
    return _compare(np.stack(each)) | {"threshold": thresholds.tolist()}


def _compare(each: Values) -> dict[str, Any]:
    """Compare the costs of each image before and after, `[2, n]`.

    Returns:
        The mean cost of an image, `cost_before` and `cost_after`, and the `interval_95` of the difference, after minus
        before, by paired percentile bootstrap over images.
    """
    num = each.shape[1]
    kinds, counts = np.unique(each[1] - each[0], return_counts=True)  # equal differences are drawn together
    drawn = np.random.default_rng(0).multinomial(num, counts / num, size=2_000) @ kinds / num
    return {
        **dict(zip(("cost_before", "cost_after"), each.mean(axis=1).tolist(), strict=True)),
        "interval_95": np.quantile(drawn, (0.025, 0.975)).tolist(),
    }


def read_costs(costs: Costs, classes: Sequence[str], *, are_labels: bool = False) -> dict[tuple[int, int], float]:
    """Return the costs by the numbers of true and predicted class, or of label and mistake in `MISTAKES`.

    Raises UnknownNameError for an unknown class or mistake, and ConfigError for an invalid cost.
    """
    kinds = (("label", classes), ("mistake", MISTAKES)) if are_labels else (("class", classes),) * 2
    numbers = [{name: number for number, name in enumerate(names)} for _, names in kinds]
    parts, grammar = ("a label, a mistake", _LABEL_GRAMMAR) if are_labels else ("two classes", _GRAMMAR)
    once = "given once" if are_labels else "given once, for two different classes"
    found = dict[tuple[int, int], float]()
    items = costs.items() if isinstance(costs, Mapping) else costs
    for item in [items] if isinstance(items, str) or not isinstance(items, Iterable) else items:
        try:
            (true, called), given = _parsed(item, numbers) if isinstance(item, str) else item
            cost = float(given)
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"cost={printable_value(item)}: must be {parts} and a number; {grammar}") from error
        for name, (kind, names) in zip((true, called), kinds, strict=True):
            if name not in names:
                raise UnknownNameError(f"cost={printable_value(name)}: no such {kind}; {nearest(str(name), names)}")
        key = (numbers[0][true], numbers[1][called])
        is_mistake = are_labels or key[0] != key[1]
        if not 0 <= cost <= _LARGEST or not is_mistake or key in found:
            rule = f"must be a number from 0 to {_LARGEST:g}, {once}"
            raise ConfigError(f"cost={printable(f'{true}:{called}={cost:g}')}: {rule}; correct it, or leave it out")
        found[key] = cost
    return found


def _parsed(text: str, numbers: Sequence[Mapping[str, int]]) -> tuple[tuple[str, str], str]:
    """Take `TRUE:PREDICTED=COST` apart; names may contain both characters. Raises ValueError if that is ambiguous."""
    names, _, cost = text.rpartition("=")
    pairs = [(names[:at], names[at + 1 :]) for at, character in enumerate(names) if character == ":"]
    known = [pair for pair in pairs if all(name in of for name, of in zip(pair, numbers, strict=True))]
    (pair,) = known or pairs[:1]
    return pair, cost
