import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.objective.config import ObjectiveConfig


@pytest.mark.parametrize("smoothing", [0, 0.1, 0.999])
def test_limits_of_the_range_are_accepted(smoothing: float) -> None:
    assert ObjectiveConfig(label_smoothing=smoothing).label_smoothing == smoothing


@pytest.mark.parametrize("smoothing", [-0.25, 1.0, 1.5, float("nan")])
def test_broken_rule_is_told_with_key_value_and_way_out(smoothing: float) -> None:
    with pytest.raises(ConfigError) as caught:
        ObjectiveConfig(label_smoothing=smoothing)
    rule = "must be at least 0 and below 1; 0.1 is usual"
    assert str(caught.value) == f"objective.label_smoothing={smoothing}: {rule}"


def test_unknown_class_weights_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        ObjectiveConfig(class_weights="balance")  # type: ignore[arg-type]
    assert str(caught.value) == "objective.class_weights=balance: no such choice; did you mean balanced?"
