from typing import Any

import numpy as np
import pytest

from vitreous.data.augmentation.policy import ColorJitter, RandAugment, ThreeAugment, TrivialAugment
from vitreous.data.build import build_augment, build_mix, sampling_weights
from vitreous.data.config import DataConfig
from vitreous.errors import ConfigError


def config(**changes: Any) -> DataConfig:
    return DataConfig(**{"source": "fruit", "img_size": (24, 32), "in_chans": 3, "num_classes": 5, **changes})


def test_geometric_and_erasing_settings_reach_augment() -> None:
    settings = {"flip": True, "min_crop_area": 0.4, "max_shift": 0.1, "max_rotate_deg": 7.0, "max_scale": 0.2,
             "erase_rate": 0.3, "fill": "reflect"}  # fmt: skip
    augment = build_augment(config(**settings))
    assert {key: getattr(augment, key) for key in settings} == settings
    assert augment.policies == ()


def test_policy_and_color_jitter_are_built_with_their_settings_in_this_order() -> None:
    keys = {"policy_num_ops": 3, "policy_strength": 0.4, "policy_rate": 0.7, "color_jitter": 0.25, "fill": "black"}
    first, second = build_augment(config(policy="randaugment", **keys)).policies
    assert isinstance(first, RandAugment)
    assert (first.num_ops, first.strength, first.rate, first.fill) == (3, 0.4, 0.7, "black")
    assert isinstance(second, ColorJitter)
    assert second.amount == 0.25
    (trivial,) = build_augment(config(policy="trivialaugment", policy_rate=0.7, fill="black")).policies
    assert isinstance(trivial, TrivialAugment)
    assert (trivial.rate, trivial.fill) == (0.7, "black")
    (three,) = build_augment(config(policy="3-augment", policy_rate=0.6)).policies
    assert isinstance(three, ThreeAugment)
    assert three.rate == 0.6


def test_policy_with_rate_zero_is_not_built() -> None:
    assert build_augment(config(policy="randaugment", policy_rate=0.0)).policies == ()


def test_mix_is_built_with_its_settings() -> None:
    mix = build_mix(config(mixup_alpha=0.8, cutmix_alpha=1.0, cutmix_rate=0.3, mix_rate=0.9, mix_per="pair",
                           mix_until=0.75))  # fmt: skip
    assert mix is not None
    assert (mix.num_classes, mix.mixup_alpha, mix.cutmix_alpha, mix.cutmix_rate) == (5, 0.8, 1.0, 0.3)
    assert (mix.rate, mix.per_pair, mix.until) == (0.9, True, 0.75)


@pytest.mark.parametrize("changes", [{"mixup_alpha": 0.8}, {"cutmix_alpha": 1.0}])
def test_mixup_or_cutmix_by_itself_is_always_used(changes: dict[str, float]) -> None:
    mix = build_mix(config(**changes))
    assert mix is not None
    assert mix.cutmix_rate == float("cutmix_alpha" in changes)


@pytest.mark.parametrize("changes", [{}, {"mixup_alpha": 1.0, "mix_rate": 0.0}, {"cutmix_alpha": 1.0, "mix_until": 0}])
def test_no_mix_is_built_if_the_configuration_never_mixes(changes: dict[str, float]) -> None:
    assert build_mix(config(**changes)) is None


def test_sampler_setting_selects_the_weights() -> None:
    labels, given = np.array([0, 0, 0, 2]), np.array([1.0, 2.0, 3.0, 4.0])
    assert sampling_weights(config(), labels, given) is None
    np.testing.assert_allclose(sampling_weights(config(sampler="balanced"), labels), [1 / 3, 1 / 3, 1 / 3, 1])
    assert sampling_weights(config(sampler="weighted"), labels, given) is given


def test_weighted_sampler_without_weights_is_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        sampling_weights(config(sampler="weighted"), np.array([0, 1]))
    assert str(caught.value) == "data.sampler=weighted: fruit has no sample weights; use balanced or shuffle"
