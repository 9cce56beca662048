import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.optim.config import OptimConfig

POSITIVE = "must be in (0, inf); 1e-3 is usual for small models"
NOT_NEGATIVE = "must be in [0, inf); 0 turns it off"


def test_limits_of_every_range_are_accepted() -> None:
    OptimConfig(lr=1e-12, weight_decay=0, beta1=0, beta2=0, warmup_ratio=0, clip_norm=0, ema_window_ratio=0)
    OptimConfig(lr=10.0, weight_decay=9.0, beta1=0.99, beta2=0.9999, warmup_ratio=0.99, ema_window_ratio=1)
    OptimConfig(layer_decay=1e-3, sam_rho=0, schedule="wsd", warmup_ratio=0.25, cooldown_ratio=0.75)
    OptimConfig(layer_decay=1, sam_rho=5.0, schedule="cosine", warmup_ratio=0.5, cooldown_ratio=0.75)


@pytest.mark.parametrize(
    ("key", "got", "rule"),
    [
        ("lr", 0.0, POSITIVE),
        ("lr", -0.5, POSITIVE),
        ("lr", float("inf"), POSITIVE),
        ("lr", float("nan"), POSITIVE),
        ("weight_decay", -0.1, NOT_NEGATIVE),
        ("weight_decay", float("inf"), NOT_NEGATIVE),
        ("sam_rho", -0.05, NOT_NEGATIVE),
        ("sam_rho", float("inf"), NOT_NEGATIVE),
        ("clip_norm", -2.0, NOT_NEGATIVE),
        ("clip_norm", float("nan"), NOT_NEGATIVE),
        ("beta1", 1.0, "must be in [0, 1); the default is 0.9"),
        ("beta1", -0.1, "must be in [0, 1); the default is 0.9"),
        ("beta2", 1.5, "must be in [0, 1); the default is 0.999"),
        ("warmup_ratio", 1, "must be in [0, 1); the default is 0.1"),
        ("warmup_ratio", float("nan"), "must be in [0, 1); the default is 0.1"),
        ("layer_decay", 0, "must be in (0, 1]; 1 turns it off"),
        ("layer_decay", 1.5, "must be in (0, 1]; 1 turns it off"),
        ("layer_decay", float("nan"), "must be in (0, 1]; 1 turns it off"),
        ("cooldown_ratio", 0.0, "must be in (0, 1); the default is 0.2"),
        ("cooldown_ratio", 1.0, "must be in (0, 1); the default is 0.2"),
        ("ema_window_ratio", -0.01, "must be in [0, 1]; 0 turns it off"),
        ("ema_window_ratio", 1.25, "must be in [0, 1]; 0 turns it off"),
    ],
)
def test_invalid_value_is_named_with_its_key_range_and_what_to_do(key: str, got: float, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OptimConfig(**{key: got})
    assert str(caught.value) == f"optim.{key}={got}: {rule}"


@pytest.mark.parametrize(
    ("key", "got", "way_out"),
    [
        ("name", "lyon", "did you mean lion?"),
        ("name", "sgd", "the default is adamw"),
        ("schedule", "cosinus", "did you mean cosine?"),
        ("schedule", "step", "the default is cosine"),
    ],
)
def test_unknown_choice_lists_all_and_suggests_the_nearest(key: str, got: str, way_out: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        OptimConfig(**{key: got})  # type: ignore[arg-type]
    known = {"name": "adamw, lion, lamb, adafactor, muon, schedule_free", "schedule": "cosine, linear, constant, wsd"}
    assert str(caught.value) == f"optim.{key}={got}: must be one of {known[key]}; {way_out}"


def test_cooldown_that_begins_before_the_warmup_ends_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        OptimConfig(schedule="wsd", warmup_ratio=0.5, cooldown_ratio=0.625)
    assert str(caught.value) == (
        "optim.cooldown_ratio=0.625: begins before the warm-up of optim.warmup_ratio=0.5 has ended; reduce one of them "
        "until they add up to 1 at most"
    )


def test_schedule_free_without_beta1_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        OptimConfig(name="schedule_free", beta1=0)
    assert str(caught.value) == "optim.beta1=0: must be above 0 for optim.name=schedule_free; 0.9 is usual"
