import pytest

from vitreous.data.config import DataConfig
from vitreous.errors import ConfigError, UnknownNameError

GOOD = {"source": "digits", "img_size": (24, 32), "in_chans": 3, "num_classes": 5}


def test_plain_defaults_vary_nothing_and_hold_out_a_fifth() -> None:
    config = DataConfig(**GOOD)
    assert (config.fit, config.flip, config.min_crop_area, config.erase_rate) == ("crop", False, 1.0, 0.0)
    assert (config.policy, config.color_jitter, config.mixup_alpha, config.cutmix_alpha) == ("none", 0.0, 0.0, 0.0)
    assert (config.sampler, config.repeats, config.fill) == ("shuffle", 1, "edge")
    assert (config.test_ratio, config.val_ratio, config.mean, config.memory_limit_bytes) == (0.2, 0.1, None, None)


def test_limits_of_every_range_are_accepted() -> None:
    DataConfig(**GOOD, test_ratio=0, val_ratio=0.99, min_crop_area=1, max_shift=0.5, max_rotate_deg=180, erase_rate=1.0)
    DataConfig(**GOOD, policy_rate=0, policy_strength=1, color_jitter=1, cutmix_rate=0, mix_rate=1, mix_until=0)
    DataConfig(**GOOD, mixup_alpha=0, cutmix_alpha=32.5, policy_num_ops=1, repeats=64, batch_size=64)
    DataConfig(**GOOD, mean=(0.0, 0.5, 1.0), std=(0.1, 0.2, 0.3), batch_size=1, memory_limit_bytes=0)


@pytest.mark.parametrize(
    ("key", "got", "rule"),
    [
        ("source", "", "must name a set or a folder"),
        ("img_size", (24, 0), "must be (height, width) in px, each at least 1"),
        ("img_size", 24, "must be (height, width) in px, each at least 1"),
        ("img_size", (24, 32, 3), "must be (height, width) in px, each at least 1"),
        ("in_chans", 4, "must be 1 (gray) or 3 (RGB)"),
        ("in_chans", True, "must be 1 (gray) or 3 (RGB)"),
        ("num_classes", 1, "must be an integer of at least 2"),
        ("batch_size", 0, "must be an integer of at least 1"),
        ("batch_size", 2.5, "must be an integer of at least 1"),
        ("split_seed", -3, "must be an integer of at least 0"),
        ("num_folds", 1, "leaves nothing to train on"),
        ("num_folds", -2, "must be an integer of at least 0"),
        ("fold", 3, "is none of data.num_folds=0 folds"),
        ("memory_limit_bytes", -1, "must be an integer of at least 0"),
        ("flip", 1, "must be true or false"),
        ("test_ratio", 1.0, "must be a number in [0, 1)"),
        ("val_ratio", -0.25, "must be a number in [0, 1)"),
        ("max_scale", 1, "must be a number in [0, 1)"),
        ("min_crop_area", 0.0, "must be a number in (0, 1]"),
        ("erase_rate", 1.5, "must be a number in [0, 1]"),
        ("erase_rate", "often", "must be a number in [0, 1]"),
        ("policy_rate", 1.01, "must be a number in [0, 1]"),
        ("policy_strength", -0.1, "must be a number in [0, 1]"),
        ("policy_num_ops", 0, "must be an integer of at least 1"),
        ("color_jitter", 1.5, "must be a number in [0, 1]"),
        ("mixup_alpha", -0.2, "must be a number in [0, inf)"),
        ("cutmix_alpha", float("inf"), "must be a number in [0, inf)"),
        ("cutmix_rate", 2, "must be a number in [0, 1]"),
        ("mix_rate", True, "must be a number in [0, 1]"),
        ("mix_until", 1.2, "must be a number in [0, 1]"),
        ("repeats", 0, "must be an integer of at least 1"),
        ("repeats", 65, "must be at most data.batch_size=64, which holds all copies of an image"),
        ("max_shift", 0.75, "must be a number in [0, 0.5]"),
        ("max_rotate_deg", 270.0, "must be a number in [0, 180]"),
        ("max_rotate_deg", float("nan"), "must be a number in [0, 180]"),
    ],
)
def test_broken_rule_is_told_with_key_and_value(key: str, got: object, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**{**GOOD, key: got})
    assert str(caught.value).startswith(f"data.{key}={got}: {rule}; ")


def test_unknown_fit_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        DataConfig(**GOOD, fit="sqash")
    assert str(caught.value) == "data.fit=sqash: no such fit; did you mean squash?"


@pytest.mark.parametrize(
    ("key", "got", "way_out"),
    [
        ("fill", "reflct", "did you mean reflect?"),
        ("policy", "randaugmnt", "did you mean randaugment?"),
        ("mix_per", "image", "use one of batch, pair"),
        ("sampler", "balance", "did you mean balanced?"),
    ],
)
def test_unknown_choice_suggests_the_nearest(key: str, got: str, way_out: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        DataConfig(**{**GOOD, key: got})
    assert str(caught.value) == f"data.{key}={got}: no such choice; {way_out}"


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5, 0.5, 0.5), None, "data.std=None: must be given with data.mean; give both or neither"),
        (None, (0.5, 0.5, 0.5), "data.mean=None: must be given with data.std; give both or neither"),
        ((0.1, 0.2), (0.5, 0.5, 0.5), "data.mean=(0.1, 0.2): has 2 values for 3 channels; give one a channel"),
        ((0.1, 0.2, 0.3), (0.4,), "data.std=(0.4,): has 1 values for 3 channels; give one a channel"),
        ((127.5, 0.5, 0.5), (1.0, 1.0, 1.0), "data.mean=(127.5, 0.5, 0.5): must lie in [0, 1]"),
        ((0.5, 0.5, 0.5), (0.2, 0.0, 0.2), "data.std=(0.2, 0.0, 0.2): must be above 0"),
    ],
)
def test_mean_and_std_must_fit_each_other(mean: object, std: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**GOOD, mean=mean, std=std)
    assert str(caught.value).startswith(message)
