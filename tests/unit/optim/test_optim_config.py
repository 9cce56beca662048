import pytest

from vitreous.errors import ConfigError
from vitreous.optim.config import OptimConfig

FINITE = "must be at least 0 and finite; 0 turns it off"
SHARE = "must be at least 0 and below 1; see its default"


def test_limits_of_every_range_are_accepted() -> None:
    OptimConfig(lr=1e-12, weight_decay=0, beta1=0, beta2=0, warmup_ratio=0, clip_norm=0, ema_window_ratio=0)
    OptimConfig(lr=10.0, weight_decay=9.0, beta1=0.99, beta2=0.9999, warmup_ratio=0.99, ema_window_ratio=1)


@pytest.mark.parametrize(
    ("key", "got", "rule"),
    [
        ("lr", 0.0, "must be above 0 and finite; 1e-3 is usual for small models"),
        ("lr", -0.5, "must be above 0 and finite; 1e-3 is usual for small models"),
        ("lr", float("inf"), "must be above 0 and finite; 1e-3 is usual for small models"),
        ("lr", float("nan"), "must be above 0 and finite; 1e-3 is usual for small models"),
        ("weight_decay", -0.1, FINITE),
        ("weight_decay", float("inf"), FINITE),
        ("clip_norm", -2.0, FINITE),
        ("clip_norm", float("nan"), FINITE),
        ("beta1", 1.0, SHARE),
        ("beta1", -0.1, SHARE),
        ("beta2", 1.5, SHARE),
        ("warmup_ratio", 1, SHARE),
        ("warmup_ratio", float("nan"), SHARE),
        ("ema_window_ratio", -0.01, "must be in [0, 1]; 0 turns it off"),
        ("ema_window_ratio", 1.25, "must be in [0, 1]; 0 turns it off"),
    ],
)
def test_broken_rule_is_told_with_key_and_value(key: str, got: float, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OptimConfig(**{key: got})
    assert str(caught.value) == f"optim.{key}={got}: {rule}"
