from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from vitreous.data.augmentation import operations as ops

BATCH = 6
SIZES = [(9, 14), (41, 33)]
FACTORS = torch.tensor([0.05, 0.4, 0.9, 1.0, 1.5, 1.95])

Operation = Callable[[Tensor], Tensor]
Reference = Callable[[Image.Image, int], Image.Image]


def draw(channels: int, size: tuple[int, int]) -> Tensor:
    """Draw noise images, each with its own range of levels."""
    levels = np.random.default_rng(0).integers(0, 256, (BATCH, channels, *size))
    for number in range(1, BATCH):
        levels[number] = levels[number] * number // BATCH + 11 * number
    return torch.from_numpy(levels.astype(np.uint8))


def as_pillow(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy().squeeze())


def from_pillow(image: Image.Image, channels: int) -> Tensor:
    array = np.array(image).reshape(image.height, image.width, -1)
    return torch.from_numpy(array).permute(2, 0, 1).expand(channels, -1, -1).float()


def enhance(name: str) -> Reference:
    return lambda image, i: getattr(ImageEnhance, name)(image).enhance(float(FACTORS[i]))


BITS = torch.tensor([1.0, 2.0, 4.0, 5.0, 7.0, 8.0])
THRESHOLDS = torch.tensor([0.0, 31.0, 128.0, 200.0, 255.0, 256.0])
SIGMAS = torch.tensor([0.1, 0.4, 0.7, 1.1, 1.6, 2.3])

CASES: dict[str, tuple[Operation, Reference]] = {
    "brightness": (lambda images: ops.brightness(images, FACTORS), enhance("Brightness")),
    "contrast": (lambda images: ops.contrast(images, FACTORS), enhance("Contrast")),
    "saturation": (lambda images: ops.saturation(images, FACTORS), enhance("Color")),
    "sharpness": (lambda images: ops.sharpness(images, FACTORS), enhance("Sharpness")),
    "posterize": (lambda images: ops.posterize(images, BITS), lambda im, i: ImageOps.posterize(im, int(BITS[i]))),
    "solarize": (lambda images: ops.solarize(images, THRESHOLDS),
                 lambda im, i: ImageOps.solarize(im, int(THRESHOLDS[i]))),
    "autocontrast": (ops.autocontrast, lambda im, i: ImageOps.autocontrast(im)),
    "equalize": (ops.equalize, lambda im, i: ImageOps.equalize(im)),
    "invert": (ops.invert, lambda im, i: ImageOps.invert(im)),
    "grayscale": (ops.grayscale, lambda im, i: ImageOps.grayscale(im)),
    "gaussian_blur": (lambda images: ops.gaussian_blur(images, SIGMAS),
                      lambda im, i: im.filter(ImageFilter.GaussianBlur(float(SIGMAS[i])))),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_operation_equals_pillows_on_each_image_within_one_level(
    name: str, channels: int, size: tuple[int, int]
) -> None:
    operation, reference = CASES[name]
    pixels = draw(channels, size)
    result = operation(pixels.float())
    assert (result.shape, result.dtype) == (pixels.shape, torch.float32)
    expected = torch.stack([from_pillow(reference(as_pillow(pixels[i]), i), channels) for i in range(BATCH)])
    torch.testing.assert_close(result, expected, atol=1.0, rtol=0)


@pytest.mark.parametrize("name", ["posterize", "solarize", "equalize", "invert"])
def test_operation_on_whole_levels_equals_pillows_exactly(name: str) -> None:
    operation, reference = CASES[name]
    pixels = draw(3, SIZES[1])
    expected = torch.stack([from_pillow(reference(as_pillow(pixels[i]), i), 3) for i in range(BATCH)])
    torch.testing.assert_close(operation(pixels.float()), expected, atol=0, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_result_does_not_depend_on_the_batch(name: str) -> None:
    images = draw(3, SIZES[0]).float()
    together = CASES[name][0](images)
    strengths = {"posterize": BITS, "solarize": THRESHOLDS, "gaussian_blur": SIGMAS}.get(name, FACTORS)
    function = getattr(ops, name)
    for i in range(BATCH):
        takes_none = name in ("autocontrast", "equalize", "invert", "grayscale")
        single = function(images[i : i + 1]) if takes_none else function(images[i : i + 1], strengths[i : i + 1])
        torch.testing.assert_close(single[0], together[i], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 7)])
def test_tiny_and_constant_images_equal_pillows(name: str, size: tuple[int, int]) -> None:
    operation, reference = CASES[name]
    pixels = torch.full((BATCH, 3, *size), 77, dtype=torch.uint8)
    expected = torch.stack([from_pillow(reference(as_pillow_of(pixels[i]), i), 3) for i in range(BATCH)])
    torch.testing.assert_close(operation(pixels.float()), expected, atol=1.0, rtol=0)


def as_pillow_of(pixels: Tensor) -> Image.Image:
    """Convert like `as_pillow`; also works for sides of 1 px."""
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


@pytest.mark.parametrize("name", CASES)
def test_results_are_in_range_and_the_input_does_not_change(name: str) -> None:
    images = 255 * torch.rand(BATCH, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    result = CASES[name][0](images)
    assert float(result.min()) >= 0
    assert float(result.max()) <= 255
    torch.testing.assert_close(images, before, atol=0, rtol=0)


def test_nearly_constant_image_is_not_equalized() -> None:
    pixels = torch.full((1, 1, 20, 31), 200, dtype=torch.uint8)
    pixels[0, 0, :3, :5] = 7
    expected = from_pillow(ImageOps.equalize(as_pillow(pixels[0])), 1)
    torch.testing.assert_close(ops.equalize(pixels.float())[0], expected, atol=0, rtol=0)
    torch.testing.assert_close(expected, pixels[0].float(), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["brightness", "contrast", "sharpness", "autocontrast", "equalize"])
def test_operation_on_other_channels_treats_each_like_a_gray_image(name: str) -> None:
    images = (torch.rand(2, 5, 6, 7, generator=torch.Generator().manual_seed(0)) * 255).round()
    factor = () if name in ("autocontrast", "equalize") else (torch.tensor([0.6, 1.4]),)
    operation = getattr(ops, name)
    expected = torch.cat([operation(channel, *factor) for channel in images.split(1, dim=1)], dim=1)
    assert torch.equal(operation(images, *factor), expected)


def test_operations_on_color_do_not_change_images_of_other_channels() -> None:
    images = torch.rand(2, 5, 6, 7) * 255
    assert torch.equal(ops.saturation(images, torch.tensor([0.0, 2.0])), images)
    assert torch.equal(ops.grayscale(images), images)
