import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from vitreous.data.augmentation import policy
from vitreous.data.augmentation.policy import (
    OPERATIONS,
    ColorJitter,
    Magnitudes,
    Policy,
    RandAugment,
    ThreeAugment,
    TrivialAugment,
    apply_operations,
)
from vitreous.seeding import derive, uniform

HEIGHT, WIDTH, BATCH = 17, 22, 64
SEED = derive(5, "augment", 3)
INDICES = np.arange(100, 100 + BATCH, dtype=np.int64)
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (BATCH, 3, HEIGHT, WIDTH), dtype=np.uint8))
IMAGES = PIXELS.float()
MAGNITUDES = Magnitudes(shear=0.4, translate=0.3, rotate_deg=40.0, enhance=0.8, posterize_bits=5)
POLICIES: list[Policy] = [RandAugment(), TrivialAugment(), ThreeAugment(), ColorJitter(amount=0.4)]
INNER = (slice(None), slice(6, 11), slice(8, 14))


def apply(name: str, strength: float, *, gray: bool = False) -> Tensor:
    """Apply one operation to one image."""
    images = IMAGES[:1, :1] if gray else IMAGES[:1]
    numbers, strengths = np.array([OPERATIONS.index(name)]), np.array([strength], dtype=np.float32)
    return apply_operations(images, numbers, strengths, MAGNITUDES, "black")[0]


def pillow(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy().squeeze())


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image).reshape(image.height, image.width, -1)).permute(2, 0, 1).float()


def moved(coefficients: tuple[float, ...]) -> Tensor:
    """Apply Pillow's affine transform, whose coefficients are in px from the upper left corner."""
    planes = [Image.fromarray(plane.float().numpy()) for plane in PIXELS[0]]
    how = Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    return torch.stack([torch.from_numpy(np.array(plane.transform(plane.size, *how))) for plane in planes])


@pytest.mark.parametrize("strength", [-0.7, 0.9])
@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color", "Sharpness"])
def test_enhancement_factor_is_one_plus_signed_strength_times_magnitude(name: str, strength: float) -> None:
    expected = tensor(getattr(ImageEnhance, name)(pillow(PIXELS[0])).enhance(1 + 0.8 * strength))
    ours = {"Color": "saturation"}.get(name, name.lower())
    torch.testing.assert_close(apply(ours, strength), expected, atol=1.0, rtol=0)


@pytest.mark.parametrize("strength", [-0.7, 0.9])
def test_operations_without_direction_ignore_the_sign(strength: float) -> None:
    image = pillow(PIXELS[0])
    bits = 8 - round(5 * abs(strength))
    torch.testing.assert_close(apply("posterize", strength), tensor(ImageOps.posterize(image, bits)))
    solarized = ImageOps.solarize(image, threshold=math.ceil(256 * (1 - abs(strength))))
    torch.testing.assert_close(apply("solarize", strength), tensor(solarized))
    torch.testing.assert_close(apply("autocontrast", strength), tensor(ImageOps.autocontrast(image)), atol=1.0, rtol=0)
    torch.testing.assert_close(apply("equalize", strength), tensor(ImageOps.equalize(image)))
    torch.testing.assert_close(apply("identity", strength), PIXELS[0].float(), atol=0, rtol=0)


@pytest.mark.parametrize("strength", [-0.6, 0.5])
def test_shear_translation_and_rotation_equal_pillows_around_the_center(strength: float) -> None:
    x, y = WIDTH / 2, HEIGHT / 2
    shear = 0.4 * strength
    cos, sin = math.cos(math.radians(40 * strength)), math.sin(math.radians(40 * strength))
    expected = {
        "shear_x": (1, shear, -shear * y, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, -shear * x),
        "translate_x": (1, 0, round(0.3 * strength * WIDTH), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, round(0.3 * strength * HEIGHT)),
        "rotate": (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y),
    }
    for name, coefficients in expected.items():
        # Pillow makes border pixels black and this warp blends them with black, so compare only the middle.
        torch.testing.assert_close(apply(name, strength)[INNER], moved(coefficients)[INNER], atol=0.05, rtol=0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_strength_zero_changes_nothing_except_for_operations_without_strength(name: str) -> None:
    same = torch.allclose(apply(name, 0.0), IMAGES[0], atol=1e-3)
    assert same is (name not in ("autocontrast", "equalize"))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_takes_gray_images(name: str) -> None:
    assert apply(name, 0.8, gray=True).shape == (1, HEIGHT, WIDTH)


def drawn(layer: int) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    draws = uniform(derive(SEED, "policy", layer), INDICES, 3)
    return (14 * draws[:, 0]).astype(np.int64), np.where(draws[:, 1] < 0.5, -1, 1).astype(np.float32), draws[:, 2]


def test_randaugment_equals_its_operations_applied_to_each_image_in_turn() -> None:
    augmented = RandAugment(num_ops=3, strength=0.6, fill="reflect")(IMAGES, INDICES, SEED)
    for i in range(BATCH):
        image = IMAGES[i : i + 1]
        for layer in range(3):
            chosen, sign, _ = drawn(layer)
            amounts = 0.6 * sign[i : i + 1]
            image = apply_operations(image, chosen[i : i + 1], amounts, policy.RANDAUGMENT_MAGNITUDES, "reflect")
        torch.testing.assert_close(augmented[i], image[0], atol=1e-2, rtol=0)


def test_trivialaugment_equals_one_operation_of_random_strength_per_image() -> None:
    augmented = TrivialAugment()(IMAGES, INDICES, SEED)
    chosen, sign, strength = drawn(0)
    for i in range(BATCH):
        part = slice(i, i + 1)
        image = apply_operations(
            IMAGES[part], chosen[part], sign[part] * strength[part], policy.TRIVIALAUGMENT_MAGNITUDES, "edge"
        )
        torch.testing.assert_close(augmented[i], image[0], atol=1e-2, rtol=0)


def test_all_fourteen_operations_are_drawn_equally_often() -> None:
    draws = uniform(derive(SEED, "policy", 0), np.arange(14_000), 3)[:, 0]
    counts = np.bincount(policy._to_operations(draws, np.ones(14_000, dtype=bool)), minlength=14)
    assert len(counts) == 14
    assert counts.min() > 850
    assert counts.max() < 1150


def test_three_augment_equals_pillows_grayscale_solarize_or_blur() -> None:
    augmented = ThreeAugment()(IMAGES, INDICES, SEED)
    draws = uniform(derive(SEED, "policy", 0), INDICES, 3)
    kinds = (3 * draws[:, 0]).astype(int)
    for i in range(BATCH):
        image = pillow(PIXELS[i])
        expected = (
            image.convert("L").convert("RGB") if kinds[i] == 0 else
            ImageOps.solarize(image) if kinds[i] == 1 else
            image.filter(ImageFilter.GaussianBlur(0.1 + 1.9 * float(draws[i, 2])))
        )  # fmt: skip
        torch.testing.assert_close(augmented[i], tensor(expected), atol=1.0, rtol=0)
    assert np.bincount(kinds).min() > BATCH // 6


def test_color_jitter_equals_pillows_brightness_contrast_and_saturation() -> None:
    augmented = ColorJitter(amount=0.4)(IMAGES, INDICES, SEED)
    draws = uniform(derive(SEED, "jitter"), INDICES, 3)
    for i in range(BATCH):
        image = pillow(PIXELS[i])
        for name, draw in zip(("Brightness", "Contrast", "Color"), draws[i], strict=True):
            image = getattr(ImageEnhance, name)(image).enhance(1 + 0.4 * (2 * float(draw) - 1))
        # Pillow cuts off fractions three times, and contrast and saturation enlarge these errors.
        torch.testing.assert_close(augmented[i], tensor(image), atol=4.0, rtol=0)


@pytest.mark.parametrize("augment", POLICIES, ids=lambda augment: type(augment).__name__)
def test_augmentation_depends_on_seed_and_index_and_not_on_the_batch(augment: Policy) -> None:
    whole = augment(IMAGES, INDICES, SEED)
    for order in (np.array([7, 2, 19]), np.array([31]), np.arange(BATCH)[::-1].copy()):
        torch.testing.assert_close(augment(IMAGES[order], INDICES[order], SEED), whole[order], atol=1e-2, rtol=0)
    assert not torch.allclose(augment(IMAGES, INDICES, SEED + 1), whole)
    assert not torch.allclose(augment(IMAGES, INDICES + 1, SEED), whole)


@pytest.mark.parametrize("augment", POLICIES, ids=lambda augment: type(augment).__name__)
@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (3, 3, 1, 5), (3, 1, 4, 2), (1, 3, 9, 14)])
def test_images_of_any_size_and_channels_stay_in_range(augment: Policy, shape: tuple[int, ...]) -> None:
    images = 255 * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    for seed in range(12):
        augmented = augment(images, np.arange(shape[0], dtype=np.int64), seed)
        assert augmented.shape == shape
        assert -0.01 <= float(augmented.min()) <= float(augmented.max()) <= 255.01
    torch.testing.assert_close(images, before, atol=0, rtol=0)


@pytest.mark.parametrize("kind", [RandAugment, TrivialAugment, ThreeAugment])
def test_rate_selects_images_without_changing_their_augmentation(kind: type[RandAugment]) -> None:
    some, always = kind(rate=0.4)(IMAGES, INDICES, SEED), kind()(IMAGES, INDICES, SEED)
    is_changed = uniform(derive(SEED, "policy"), INDICES, 1)[:, 0] < 0.4
    assert 0 < is_changed.sum() < BATCH
    torch.testing.assert_close(some[is_changed], always[is_changed], atol=1e-2, rtol=0)
    torch.testing.assert_close(some[~is_changed], IMAGES[~is_changed], atol=0, rtol=0)
