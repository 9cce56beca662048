"""Costs of mistakes, calibrated probabilities -> the decision with the least expected cost, and what it saves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.printable import printable, printable_value
from vitreous.use.evaluate.metrics.scores import Numbers, Values

Costs = Mapping[tuple[str, str], float] | Sequence[str]
"""(true class, predicted class) -> cost of that mistake; or texts such as `defect:good=20`. Other mistakes cost 1."""

_LARGEST = 1e12
_GRAMMAR = "write TRUE:PREDICTED=COST, e.g. defect:good=20, or in Python {(true, predicted): 20}"


def decide(
    costs: Mapping[tuple[int, int], float], probabilities: Values, true: Numbers, predicted: Numbers
) -> dict[str, Any]:
    """Predict the class with the least expected cost from calibrated probabilities, `[n, classes]`.

    Nothing is fitted to the images. `true` and `predicted` are class indices, `[n]`; costs come from `read_costs`.

    Returns:
        The classes `predicted` now, `[n]`; the mean cost of an image, `cost_before` and `cost_after`; the `interval_95`
        of the difference, after minus before, by paired percentile bootstrap over images; and with two classes the
        `threshold` on the probability of each (Elkan 2001, "The foundations of cost-sensitive learning"), else None.
    """
    # If every mistake costs 1, the expected cost of a class is the probability of all others.
    expected = probabilities.sum(axis=1, keepdims=True) - probabilities
    for (actual, called), cost in costs.items():
        expected[:, called] += (cost - 1) * probabilities[:, actual]
    choices = np.stack([predicted, expected.argmin(axis=1)])
    each = (choices != true).astype(np.float64)
    for (actual, called), cost in costs.items():
        each[(choices == called) & (true == actual)] = cost
    kinds, counts = np.unique(each[1] - each[0], return_counts=True)  # equal differences are drawn together
    drawn = np.random.default_rng(0).multinomial(len(true), counts / len(true), size=2_000) @ kinds / len(true)
    false_alarms = [costs.get(pair, 1.0) for pair in ((1, 0), (0, 1))]
    total = sum(false_alarms) * (probabilities.shape[1] == 2)
    return {
        "predicted": choices[1],
        **dict(zip(("cost_before", "cost_after"), each.mean(axis=1).tolist(), strict=True)),
        "interval_95": np.quantile(drawn, (0.025, 0.975)).tolist(),
        "threshold": [cost / total for cost in false_alarms] if total else None,
    }


def read_costs(costs: Costs, classes: Sequence[str], *, are_labels: bool = False) -> dict[tuple[int, int], float]:
    """Return the costs by the numbers of the true and the predicted class.

    Raises UnknownNameError for an unknown class, and ConfigError for an invalid cost or several labels per image.
    """
    numbers, found = {name: number for number, name in enumerate(classes)}, dict[tuple[int, int], float]()
    if costs and are_labels:
        way_out = "predict a label from the probability FALSE ALARM / (FALSE ALARM + MISS) on, with `predict --out`"
        raise ConfigError(f"cost: a label has misses and false alarms instead of classes; {way_out}")
    items = costs.items() if isinstance(costs, Mapping) else costs
    for item in [items] if isinstance(items, str) or not isinstance(items, Iterable) else items:
        try:
            (true, called), given = _parsed(item, numbers) if isinstance(item, str) else item
            cost = float(given)
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"cost={printable_value(item)}: must be two classes and a number; {_GRAMMAR}") from error
        for name in (true, called):
            if name not in numbers:
                raise UnknownNameError(f"cost={printable_value(name)}: no such class; {nearest(str(name), classes)}")
        key = (numbers[true], numbers[called])
        if not 0 <= cost <= _LARGEST or key[0] == key[1] or key in found:
            rule = f"must be a number from 0 to {_LARGEST:g}, given once, for two different classes"
            raise ConfigError(f"cost={printable(f'{true}:{called}={cost:g}')}: {rule}; correct it, or leave it out")
        found[key] = cost
    return found


def _parsed(text: str, numbers: Mapping[str, int]) -> tuple[tuple[str, str], str]:
    """Take `TRUE:PREDICTED=COST` apart; names may contain both characters. Raises ValueError if that is ambiguous."""
    names, _, cost = text.rpartition("=")
    pairs = [(names[:at], names[at + 1 :]) for at, character in enumerate(names) if character == ":"]
    known = [pair for pair in pairs if all(name in numbers for name in pair)]
    (pair,) = known or pairs[:1]
    return pair, cost
