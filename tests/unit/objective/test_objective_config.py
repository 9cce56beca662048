from typing import Any

import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.objective.config import ObjectiveConfig


@pytest.mark.parametrize(
    ("key", "value", "others"),
    [
        ("label_smoothing", 0, {}),
        ("label_smoothing", 0.999, {}),
        ("bce_threshold", 0.0, {"loss": "bce"}),
        ("bce_threshold", 0.999, {"loss": "bce"}),
        ("logit_adjustment", 0.0, {"loss": "bce"}),
        ("logit_adjustment", 5.0, {}),
        ("distill_temperature", 1e-3, {}),
        ("distill_weight", 1e-9, {}),
        ("distill_weight", 1.0, {}),
        ("teacher", "runs/teacher", {"distill": "feature"}),
    ],
)
def test_limits_of_the_range_are_accepted(key: str, value: Any, others: dict[str, Any]) -> None:
    assert getattr(ObjectiveConfig(**{key: value}, **others), key) == value


@pytest.mark.parametrize(
    ("key", "values", "rule"),
    [
        ("label_smoothing", (-0.25, 1.0, 1.5, float("nan")), "must be at least 0 and below 1; 0.1 is usual"),
        ("bce_threshold", (-0.5, 1.0, float("nan")), "must be at least 0 and below 1; 0 and 0.2 are usual"),
        (
            "logit_adjustment",
            (-1.0, float("inf"), float("nan")),
            "must be at least 0 and finite; 1 is usual, 0 is off",
        ),
        (
            "distill_temperature",
            (0.0, -2.0, float("inf"), float("nan")),
            "must be above 0 and finite; 1 to 4 is usual",
        ),
        (
            "distill_weight",
            (0.0, 1.01, float("nan")),
            "must be above 0 and at most 1; 0.5 is usual, and objective.teacher=none does without",
        ),
    ],
)
def test_broken_rule_is_told_with_key_value_and_way_out(key: str, values: tuple[float, ...], rule: str) -> None:
    for value in values:
        with pytest.raises(ConfigError) as caught:
            ObjectiveConfig(**{key: value})  # type: ignore[arg-type]
        assert str(caught.value) == f"objective.{key}={value}: {rule}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"loss": "bce", "logit_adjustment": 1.5},
            "objective.logit_adjustment=1.5: has no meaning for objective.loss=bce; set it to 0, or "
            "objective.loss=cross_entropy",
        ),
        (
            {"bce_threshold": 0.2},
            "objective.bce_threshold=0.2: is of objective.loss=bce, which is cross_entropy; set that, or leave it out",
        ),
        (
            {"distill": "token"},
            "objective.distill=token: needs a teacher; set objective.teacher to a trained model",
        ),
        ({"teacher": " "}, "objective.teacher=' ': must name a trained model; give a run folder, or leave it out"),
    ],
)
def test_what_has_no_effect_is_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ObjectiveConfig(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("key", "value", "way_out"),
    [
        ("class_weights", "balance", "did you mean balanced?"),
        ("loss", "bse", "did you mean bce?"),
        ("distill", "tokens", "did you mean token?"),
        ("distill", "x", "use one of feature, hard, soft, token, token_soft"),
    ],
)
def test_unknown_choice_suggests_the_nearest(key: str, value: Any, way_out: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        ObjectiveConfig(**{key: value})
    assert str(caught.value) == f"objective.{key}={value}: no such choice; {way_out}"
