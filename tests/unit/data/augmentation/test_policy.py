import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from vitreous.data.augmentation import policy
from vitreous.data.augmentation.policy import (
    NAMES,
    ColorJitter,
    Policy,
    RandAugment,
    Reach,
    ThreeAugment,
    TrivialAugment,
    apply_ops,
)
from vitreous.seeding import derive, uniform

HEIGHT, WIDTH, BATCH = 17, 22, 64
SEED = derive(5, "augment", 3)
INDICES = np.arange(100, 100 + BATCH, dtype=np.int64)
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (BATCH, 3, HEIGHT, WIDTH), dtype=np.uint8))
IMAGES = PIXELS.float()
REACH = Reach(shear=0.4, translate=0.3, rotate_deg=40.0, enhance=0.8, posterize_bits=5)
POLICIES: list[Policy] = [RandAugment(), TrivialAugment(), ThreeAugment(), ColorJitter(amount=0.4)]
INNER = (slice(None), slice(6, 11), slice(8, 14))


def named(name: str, amount: float, *, gray: bool = False) -> Tensor:
    """One image after one operation."""
    images = IMAGES[:1, :1] if gray else IMAGES[:1]
    return apply_ops(images, np.array([NAMES.index(name)]), np.array([amount], dtype=np.float32), REACH, "black")[0]


def pillow(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy().squeeze())


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image).reshape(image.height, image.width, -1)).permute(2, 0, 1).float()


def moved(coefficients: tuple[float, ...]) -> Tensor:
    """Pillow's affine transform, in px from the upper left corner of the image."""
    planes = [Image.fromarray(plane.float().numpy()) for plane in PIXELS[0]]
    how = Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    return torch.stack([torch.from_numpy(np.array(plane.transform(plane.size, *how))) for plane in planes])


@pytest.mark.parametrize("amount", [-0.7, 0.9])
@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color", "Sharpness"])
def test_enhancing_takes_the_factor_that_strength_and_sign_say(name: str, amount: float) -> None:
    expected = tensor(getattr(ImageEnhance, name)(pillow(PIXELS[0])).enhance(1 + 0.8 * amount))
    ours = {"Color": "saturation"}.get(name, name.lower())
    torch.testing.assert_close(named(ours, amount), expected, atol=1.0, rtol=0)


@pytest.mark.parametrize("amount", [-0.7, 0.9])
def test_operations_without_direction_take_the_strength_alone(amount: float) -> None:
    image = pillow(PIXELS[0])
    bits = 8 - round(5 * abs(amount))
    torch.testing.assert_close(named("posterize", amount), tensor(ImageOps.posterize(image, bits)))
    solarized = ImageOps.solarize(image, threshold=math.ceil(256 * (1 - abs(amount))))
    torch.testing.assert_close(named("solarize", amount), tensor(solarized))
    torch.testing.assert_close(named("autocontrast", amount), tensor(ImageOps.autocontrast(image)), atol=1.0, rtol=0)
    torch.testing.assert_close(named("equalize", amount), tensor(ImageOps.equalize(image)))
    torch.testing.assert_close(named("identity", amount), PIXELS[0].float(), atol=0, rtol=0)


@pytest.mark.parametrize("amount", [-0.6, 0.5])
def test_shear_shift_and_turn_are_pillows_around_the_centre(amount: float) -> None:
    x, y = WIDTH / 2, HEIGHT / 2
    shear = 0.4 * amount
    cos, sin = math.cos(math.radians(40 * amount)), math.sin(math.radians(40 * amount))
    expected = {
        "shear_x": (1, shear, -shear * y, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, -shear * x),
        "translate_x": (1, 0, round(0.3 * amount * WIDTH), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, round(0.3 * amount * HEIGHT)),
        "rotate": (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y),
    }
    for name, coefficients in expected.items():
        # Pillow leaves a border pixel black where we blend it with black: the middle is the same.
        torch.testing.assert_close(named(name, amount)[INNER], moved(coefficients)[INNER], atol=0.05, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_strength_zero_changes_nothing_but_what_has_no_strength(name: str) -> None:
    same = torch.allclose(named(name, 0.0), IMAGES[0], atol=1e-3)
    assert same is (name not in ("autocontrast", "equalize"))


@pytest.mark.parametrize("name", NAMES)
def test_gray_images_pass_every_operation(name: str) -> None:
    assert named(name, 0.8, gray=True).shape == (1, HEIGHT, WIDTH)


def drawn(layer: int) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    draws = uniform(derive(SEED, "policy", layer), INDICES, 3)
    return (14 * draws[:, 0]).astype(np.int64), np.where(draws[:, 1] < 0.5, -1, 1).astype(np.float32), draws[:, 2]


def test_randaugment_is_its_operations_image_by_image_one_after_the_other() -> None:
    varied = RandAugment(num_ops=3, strength=0.6, fill="reflect")(IMAGES, INDICES, SEED)
    for i in range(BATCH):
        image = IMAGES[i : i + 1]
        for layer in range(3):
            chosen, sign, _ = drawn(layer)
            amounts = 0.6 * sign[i : i + 1]
            image = apply_ops(image, chosen[i : i + 1], amounts, policy.RANDAUGMENT, "reflect")
        torch.testing.assert_close(varied[i], image[0], atol=1e-2, rtol=0)


def test_trivialaugment_is_one_operation_of_its_own_strength() -> None:
    varied = TrivialAugment()(IMAGES, INDICES, SEED)
    chosen, sign, strength = drawn(0)
    for i in range(BATCH):
        part = slice(i, i + 1)
        image = apply_ops(IMAGES[part], chosen[part], sign[part] * strength[part], policy.TRIVIALAUGMENT, "edge")
        torch.testing.assert_close(varied[i], image[0], atol=1e-2, rtol=0)


def test_all_fourteen_operations_are_drawn_alike_often() -> None:
    draws = uniform(derive(SEED, "policy", 0), np.arange(14_000), 3)[:, 0]
    counts = np.bincount(policy._chosen(draws, np.ones(14_000, dtype=bool)), minlength=14)
    assert len(counts) == 14
    assert counts.min() > 850
    assert counts.max() < 1150


def test_three_augment_makes_gray_solarises_or_blurs_as_pillow_does() -> None:
    varied = ThreeAugment()(IMAGES, INDICES, SEED)
    draws = uniform(derive(SEED, "policy", 0), INDICES, 3)
    kinds = (3 * draws[:, 0]).astype(int)
    for i in range(BATCH):
        image = pillow(PIXELS[i])
        expected = (
            image.convert("L").convert("RGB") if kinds[i] == 0 else
            ImageOps.solarize(image) if kinds[i] == 1 else
            image.filter(ImageFilter.GaussianBlur(0.1 + 1.9 * float(draws[i, 2])))
        )  # fmt: skip
        torch.testing.assert_close(varied[i], tensor(expected), atol=1.0, rtol=0)
    assert np.bincount(kinds).min() > BATCH // 6


def test_jitter_multiplies_brightness_contrast_and_saturation_as_pillow_does() -> None:
    varied = ColorJitter(amount=0.4)(IMAGES, INDICES, SEED)
    draws = uniform(derive(SEED, "jitter"), INDICES, 3)
    for i in range(BATCH):
        image = pillow(PIXELS[i])
        for name, draw in zip(("Brightness", "Contrast", "Color"), draws[i], strict=True):
            image = getattr(ImageEnhance, name)(image).enhance(1 + 0.4 * (2 * float(draw) - 1))
        # Pillow cuts fractions off three times, and what contrast and colour enlarge of that is within another level.
        torch.testing.assert_close(varied[i], tensor(image), atol=4.0, rtol=0)


@pytest.mark.parametrize("made", POLICIES, ids=lambda made: type(made).__name__)
def test_variation_depends_on_seed_and_index_and_not_on_the_batch(made: Policy) -> None:
    whole = made(IMAGES, INDICES, SEED)
    for order in (np.array([7, 2, 19]), np.array([31]), np.arange(BATCH)[::-1].copy()):
        torch.testing.assert_close(made(IMAGES[order], INDICES[order], SEED), whole[order], atol=1e-2, rtol=0)
    assert not torch.allclose(made(IMAGES, INDICES, SEED + 1), whole)
    assert not torch.allclose(made(IMAGES, INDICES + 1, SEED), whole)


@pytest.mark.parametrize("made", POLICIES, ids=lambda made: type(made).__name__)
@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (3, 3, 1, 5), (3, 1, 4, 2), (1, 3, 9, 14)])
def test_images_of_any_size_and_one_channel_pass_within_their_range(made: Policy, shape: tuple[int, ...]) -> None:
    images = 255 * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    for seed in range(12):
        varied = made(images, np.arange(shape[0], dtype=np.int64), seed)
        assert varied.shape == shape
        assert -0.01 <= float(varied.min()) <= float(varied.max()) <= 255.01
    torch.testing.assert_close(images, before, atol=0, rtol=0)


@pytest.mark.parametrize("kind", [RandAugment, TrivialAugment, ThreeAugment])
def test_rate_leaves_the_others_as_they_are_and_varies_these_as_always(kind: type[RandAugment]) -> None:
    some, always = kind(rate=0.4)(IMAGES, INDICES, SEED), kind()(IMAGES, INDICES, SEED)
    varies = uniform(derive(SEED, "policy"), INDICES, 1)[:, 0] < 0.4
    assert 0 < varies.sum() < BATCH
    torch.testing.assert_close(some[varies], always[varies], atol=1e-2, rtol=0)
    torch.testing.assert_close(some[~varies], IMAGES[~varies], atol=0, rtol=0)
