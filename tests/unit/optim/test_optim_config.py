import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.optim.config import OptimConfig

FINITE = "must be at least 0 and finite; 0 turns it off"
SHARE = "must be at least 0 and below 1; see its default"


def test_limits_of_every_range_are_accepted() -> None:
    OptimConfig(lr=1e-12, weight_decay=0, beta1=0, beta2=0, warmup_ratio=0, clip_norm=0, ema_window_ratio=0)
    OptimConfig(lr=10.0, weight_decay=9.0, beta1=0.99, beta2=0.9999, warmup_ratio=0.99, ema_window_ratio=1)
    OptimConfig(layer_decay=1e-3, sam_rho=0, schedule="wsd", warmup_ratio=0.25, cooldown_ratio=0.75)
    OptimConfig(layer_decay=1, sam_rho=5.0, schedule="cosine", warmup_ratio=0.5, cooldown_ratio=0.75)


@pytest.mark.parametrize(
    ("key", "got", "rule"),
    [
        ("lr", 0.0, "must be above 0 and finite; 1e-3 is usual for small models"),
        ("lr", -0.5, "must be above 0 and finite; 1e-3 is usual for small models"),
        ("lr", float("inf"), "must be above 0 and finite; 1e-3 is usual for small models"),
        ("lr", float("nan"), "must be above 0 and finite; 1e-3 is usual for small models"),
        ("weight_decay", -0.1, FINITE),
        ("weight_decay", float("inf"), FINITE),
        ("sam_rho", -0.05, FINITE),
        ("sam_rho", float("inf"), FINITE),
        ("clip_norm", -2.0, FINITE),
        ("clip_norm", float("nan"), FINITE),
        ("beta1", 1.0, SHARE),
        ("beta1", -0.1, SHARE),
        ("beta2", 1.5, SHARE),
        ("warmup_ratio", 1, SHARE),
        ("warmup_ratio", float("nan"), SHARE),
        ("layer_decay", 0, "must be above 0 and at most 1; 1 turns it off"),
        ("layer_decay", 1.5, "must be above 0 and at most 1; 1 turns it off"),
        ("layer_decay", float("nan"), "must be above 0 and at most 1; 1 turns it off"),
        ("cooldown_ratio", 0.0, "must be above 0 and below 1; 0.2 is usual"),
        ("cooldown_ratio", 1.0, "must be above 0 and below 1; 0.2 is usual"),
        ("ema_window_ratio", -0.01, "must be in [0, 1]; 0 turns it off"),
        ("ema_window_ratio", 1.25, "must be in [0, 1]; 0 turns it off"),
    ],
)
def test_broken_rule_is_told_with_key_and_value(key: str, got: float, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OptimConfig(**{key: got})
    assert str(caught.value) == f"optim.{key}={got}: {rule}"


@pytest.mark.parametrize(
    ("key", "got", "way_out"),
    [
        ("name", "lyon", "did you mean lion?"),
        ("name", "sgd", "use one of adafactor, adamw, lamb, lion, muon, schedule_free"),
        ("schedule", "cosinus", "did you mean cosine?"),
        ("schedule", "step", "use one of constant, cosine, linear, wsd"),
    ],
)
def test_name_that_does_not_exist_is_told_with_the_nearest_one(key: str, got: str, way_out: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        OptimConfig(**{key: got})  # type: ignore[arg-type]
    assert str(caught.value) == f"optim.{key}={got}: no such choice; {way_out}"


def test_cooldown_that_begins_before_the_warmup_ends_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        OptimConfig(schedule="wsd", warmup_ratio=0.5, cooldown_ratio=0.625)
    assert str(caught.value) == (
        "optim.cooldown_ratio=0.625: begins before optim.warmup_ratio=0.5 has ended; they must add up to 1 at most"
    )


def test_schedule_free_without_its_average_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        OptimConfig(name="schedule_free", beta1=0)
    expected = "optim.beta1=0: schedule_free needs it above 0, its average is worked out from it; 0.9 is usual"
    assert str(caught.value) == expected
