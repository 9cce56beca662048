import pytest

from vitreous.data.config import DataConfig
from vitreous.errors import ConfigError, UnknownNameError

SIZE = "must be 2 whole numbers, each from 1 to 2,147,483,647; give a height and a width in px, e.g. 64x48"
GOOD = {"source": "digits", "img_size": (24, 32), "in_chans": 3, "num_classes": 5}


def test_defaults_do_not_augment_and_hold_out_a_fifth() -> None:
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
        ("source", "", "must be text that is not blank; name a data set, or give the path of a folder or table"),
        (
            "root",
            " ",
            "must be text that is not blank, or none; give the folder of the images of a table or an export",
        ),
        ("cache", "", "must be text that is not blank, or none; use auto, none or a folder"),
        ("img_size", (24, 0), SIZE),
        ("img_size", 24, SIZE),
        ("img_size", (24, 32, 3), SIZE),
        ("in_chans", 17, "must be in [1, 16]; use 1 for gray, 3 for RGB, or the number that the images have"),
        (
            "in_chans",
            True,
            "must be a whole number in [1, 16]; use 1 for gray, 3 for RGB, or the number that the images have",
        ),
        ("num_classes", 0, "must be from 1 to 2,147,483,647; a classifier needs two classes or more"),
        ("batch_size", 0, "must be from 1 to 2,147,483,647; use 64, or fewer if memory is short"),
        ("batch_size", 2.5, "must be a whole number from 1 to 2,147,483,647; use 64, or fewer if memory is short"),
        ("split_seed", -3, "must be from 0 to 18,446,744,073,709,551,615; the default is 0"),
        ("num_folds", -2, "must be from 0 to 2,147,483,647; use 5, or 0 for a single split"),
        (
            "memory_limit_bytes",
            -1,
            "must be from 0 to 9,223,372,036,854,775,807, or none; leave it out for a quarter of the memory",
        ),
        ("flip", 1, "must be true or false; the default is false"),
        ("test_ratio", 1.0, "must be in [0, 1); the default is 0.2"),
        ("val_ratio", -0.25, "must be in [0, 1); the default is 0.1"),
        ("max_scale", 1, "must be in [0, 1); the default is 0"),
        ("min_crop_area", 0.0, "must be in (0, 1]; 1 turns cropping off"),
        ("erase_rate", 1.5, "must be in [0, 1]; the default is 0"),
        ("erase_rate", "often", "must be a number in [0, 1]; the default is 0"),
        ("policy_rate", 1.01, "must be in [0, 1]; the default is 1"),
        ("policy_strength", -0.1, "must be in [0, 1]; the default is 0.9"),
        ("policy_num_ops", 0, "must be in [1, 100]; use 2, or data.policy=none"),
        ("color_jitter", 1.5, "must be in [0, 1]; the default is 0"),
        ("mixup_alpha", -0.2, "must be in [0, inf); the default is 0"),
        ("cutmix_alpha", float("inf"), "must be in [0, inf); the default is 0"),
        ("cutmix_rate", 2, "must be in [0, 1]; the default is 0.5"),
        ("mix_rate", True, "must be a number in [0, 1]; the default is 1"),
        ("mix_until", 1.2, "must be in [0, 1]; the default is 1"),
        ("repeats", 0, "must be from 1 to 2,147,483,647; use 1 for no repeated augmentation"),
        ("max_shift", 0.75, "must be in [0, 0.5]; the default is 0"),
        ("max_rotate_deg", 270.0, "must be in [0, 180]; the default is 0"),
        ("max_rotate_deg", float("nan"), "must be in [0, 180]; the default is 0"),
    ],
)
def test_invalid_value_is_named_with_its_key_range_and_what_to_do(key: str, got: object, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**{**GOOD, key: got})
    assert str(caught.value) == f"data.{key}={got!r}: {rule}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"num_folds": 1},
            "data.num_folds=1: must be 2 or more, so that images are left for training; use 5, or 0 for a single split",
        ),
        ({"fold": 3}, "data.fold=3: there are no folds; set data.num_folds as well, or leave it out"),
        ({"fold": 4, "num_folds": 4}, "data.fold=4: is none of data.num_folds=4 folds; use 0 to 3"),
        (
            {"repeats": 65},
            "data.repeats=65: must be at most data.batch_size=64, since all copies of an image are in one batch; use "
            "fewer repeats or a larger batch",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**GOOD, **values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("key", "got", "message"),
    [
        ("fit", "sqash", "must be one of crop, squash, pad; did you mean squash?"),
        ("fill", "reflct", "must be one of edge, black, reflect; did you mean reflect?"),
        (
            "policy",
            "randaugmnt",
            "must be one of none, randaugment, trivialaugment, 3-augment; did you mean randaugment?",
        ),
        ("mix_per", "image", "must be one of batch, pair; the default is batch"),
        ("sampler", "balance", "must be one of shuffle, balanced, weighted; did you mean balanced?"),
        ("on_error", "skp", "must be one of skip, error; did you mean skip?"),
    ],
)
def test_unknown_choice_suggests_the_nearest(key: str, got: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        DataConfig(**{**GOOD, key: got})
    assert str(caught.value) == f"data.{key}={got}: {message}"


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5, 0.5, 0.5), None, "data.mean=(0.5, 0.5, 0.5): must be given with data.std; give both or neither"),
        (None, (0.5, 0.5, 0.5), "data.std=(0.5, 0.5, 0.5): must be given with data.mean; give both or neither"),
        (
            (0.1, 0.2),
            (0.5, 0.5, 0.5),
            "data.mean=(0.1, 0.2): must have one number per channel, 3 here; add or remove numbers",
        ),
        ((0.1, 0.2, 0.3), (0.4,), "data.std=(0.4,): must have one number per channel, 3 here; add or remove numbers"),
        (
            (127.5, 0.5, 0.5),
            (1.0, 1.0, 1.0),
            "data.mean=(127.5, 0.5, 0.5): must be a list of numbers, each in [0, 1], or none; give means of pixels "
            "that are divided by 255",
        ),
        (
            (0.5, 0.5, 0.5),
            (0.2, 0.0, 0.2),
            "data.std=(0.2, 0.0, 0.2): must be a list of numbers, each in (0, inf), or none; leave mean and std out to "
            "have them measured",
        ),
    ],
)
def test_mean_and_std_must_fit_each_other(mean: object, std: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**GOOD, mean=mean, std=std)
    assert str(caught.value) == message
