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
def test_limits_of_every_range_are_accepted(key: str, value: Any, others: dict[str, Any]) -> None:
    assert getattr(ObjectiveConfig(**{key: value}, **others), key) == value


@pytest.mark.parametrize(
    ("key", "values", "rule"),
    [
        ("label_smoothing", (-0.25, 1.0, 1.5, float("nan")), "must be in [0, 1); 0.1 is usual"),
        ("bce_threshold", (-0.5, 1.0, float("nan")), "must be in [0, 1), or none; 0 and 0.2 are usual"),
        (
            "logit_adjustment",
            (-1.0, float("inf"), float("nan")),
            "must be in [0, inf); 1 is usual, 0 turns it off",
        ),
        ("distill_temperature", (0.0, -2.0, float("inf"), float("nan")), "must be in (0, inf); 1 to 4 is usual"),
        (
            "distill_weight",
            (0.0, 1.01, float("nan")),
            "must be in (0, 1]; 0.5 is usual, objective.teacher=none turns it off",
        ),
    ],
)
def test_invalid_value_is_named_with_its_key_range_and_what_to_do(
    key: str, values: tuple[float, ...], rule: str
) -> None:
    for value in values:
        with pytest.raises(ConfigError) as caught:
            ObjectiveConfig(**{key: value})  # type: ignore[arg-type]
        assert str(caught.value) == f"objective.{key}={value}: {rule}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"loss": "bce", "logit_adjustment": 1.5},
            "objective.logit_adjustment=1.5: has no effect with objective.loss=bce; set it to 0, or use "
            "objective.loss=cross_entropy",
        ),
        (
            {"bce_threshold": 0.2},
            "objective.bce_threshold=0.2: has no effect with objective.loss=cross_entropy; use objective.loss=bce, or "
            "leave it out",
        ),
        (
            {"distill": "token"},
            "objective.distill=token: needs a teacher; set objective.teacher to a trained model",
        ),
        (
            {"teacher": " "},
            "objective.teacher=' ': must be text that is not blank, or none; give a run folder or a weights file, "
            "or leave it out",
        ),
    ],
)
def test_key_without_effect_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ObjectiveConfig(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("class_weights", "balance", "must be one of none, balanced; did you mean balanced?"),
        ("loss", "bse", "must be one of cross_entropy, bce, multilabel, mae, simmim, lejepa; did you mean bce?"),
        ("distill", "tokens", "must be one of soft, hard, token, token_soft, feature; did you mean token?"),
        ("distill", "x", "must be one of soft, hard, token, token_soft, feature; the default is soft"),
    ],
)
def test_unknown_choice_lists_all_and_suggests_the_nearest(key: str, value: Any, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        ObjectiveConfig(**{key: value})
    assert str(caught.value) == f"objective.{key}={value}: {message}"
