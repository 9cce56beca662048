"""Changes of photos: published parameters and formulas, random numbers by image, any size and number of channels."""

import colorsys
import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from vitreous.data.config import DataConfig
from vitreous.recipe.keys import checked
from vitreous.use.evaluate.robustness.changes import CHANGES, SEVERITY, Change, changes_for

BY_NAME = {change.name: change for change in CHANGES}
COMMON = [change for change in CHANGES if change.unit == SEVERITY]
KERNELS = [change for change in CHANGES if not change.unit]
PUBLISHED: dict[str, tuple[list[Any], list[Any]]] = {
    "gaussian noise": ([0.08, 0.12, 0.18, 0.26, 0.38], [0.04, 0.06, 0.08, 0.09, 0.10]),
    "shot noise": ([60, 25, 12, 5, 3], [500, 250, 100, 75, 50]),
    "impulse noise": ([0.03, 0.06, 0.09, 0.17, 0.27], [0.01, 0.02, 0.03, 0.05, 0.07]),
    "defocus blur": (
        [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
        [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    ),
    "glass blur": (
        [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
        [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
    ),
    "motion blur": ([(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)], [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)]),
    "zoom blur": (
        [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
        [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    ),
    "snow": (
        [(0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
         (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)],
        [(0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
         (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)],
    ),
    "frost": (
        [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
        [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
    ),
    "fog": (
        [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
        [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
    ),
    "brightness": ([0.1, 0.2, 0.3, 0.4, 0.5], [0.05, 0.1, 0.15, 0.2, 0.3]),
    "contrast": ([0.4, 0.3, 0.2, 0.1, 0.05], [0.75, 0.5, 0.4, 0.3, 0.15]),
    "elastic transform": (
        [(244 * 2, 244 * 0.7, 244 * 0.1), (244 * 2, 244 * 0.08, 244 * 0.2), (244 * 0.05, 244 * 0.01, 244 * 0.02),
         (244 * 0.07, 244 * 0.01, 244 * 0.02), (244 * 0.12, 244 * 0.01, 244 * 0.02)],
        [(0, 0, 32 * 0.08), (32 * 0.05, 32 * 0.2, 32 * 0.07), (32 * 0.08, 32 * 0.06, 32 * 0.06),
         (32 * 0.1, 32 * 0.04, 32 * 0.05), (32 * 0.1, 32 * 0.03, 32 * 0.03)],
    ),
    "pixelate": ([0.6, 0.5, 0.4, 0.3, 0.25], [0.95, 0.9, 0.85, 0.75, 0.65]),
    "JPEG compression": ([25, 18, 15, 10, 7], [80, 65, 58, 50, 40]),
}  # fmt: skip
"""Parameters of the published code at 224 px and at 32 px, typed in from there."""


class Fixed:
    """Random numbers that are always the same one."""

    def __init__(self, number: float) -> None:
        self.number = number

    def uniform(self, low: float, high: float, shape: Any = None) -> Any:
        number = min(high, max(low, self.number))
        return number if shape is None else np.full(shape, number)


def photo(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """Return an image with edges, gradients and texture, between 40 and 215."""
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(9 * rows + k) * np.cos(7 * columns - k) + (rows > columns) for k in range(channels)]
    noise = np.random.default_rng(3).uniform(-0.3, 0.3, (height, width, channels))
    return np.uint8(128 + 87 * (np.stack(waves, axis=2) / 2 + noise).clip(-1, 1))


def apply(name: str, image: NDArray[np.uint8], step: int = 2, seed: int = 0) -> NDArray[np.uint8]:
    return BY_NAME[name](image, step, np.random.default_rng(seed))


def close(found: NDArray[Any], expected: NDArray[Any], levels: float = 1.0) -> None:
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=levels)


# Parameters.


@pytest.mark.parametrize(("side", "column"), [(224, 0), (32, 1)])
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_at_the_published_sizes_are_the_published_ones(name: str, side: int, column: int) -> None:
    seen = []

    def record(image: Any, draw: Any, scale: float, *parameters: float) -> Any:
        seen.append((scale, *parameters))
        return image

    for step in range(5):
        replace(BY_NAME[name], function=record)(photo(side, side), step, np.random.default_rng(0))
    published = [(1.0, *np.atleast_1d(row)) for row in PUBLISHED[name][column]]
    np.testing.assert_allclose(seen, published, rtol=1e-12)


def test_the_15_common_corruptions_come_first_and_have_5_severities() -> None:
    assert [change.name for change in CHANGES[:15]] == list(PUBLISHED) == [change.name for change in COMMON]
    assert all(change.strengths == [1, 2, 3, 4, 5] for change in COMMON)


@pytest.mark.parametrize(
    ("size", "scale", "first"),
    [((64, 90), 2, 0.3), ((112, 300), 0.5, 3), ((84, 84), 84 / 32, 0.3), ((85, 85), 85 / 224, 3)],
)
def test_other_sizes_take_the_nearer_table_and_scale_lengths(size: tuple[int, int], scale: float, first: float) -> None:
    seen = []
    change = replace(BY_NAME["defocus blur"], function=lambda image, draw, *rest: seen.append(rest) or image)
    change(photo(*size), 0, np.random.default_rng(0))
    assert seen[0][:2] == pytest.approx((scale, first))


# Formulas.


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("step", [0, 2, 4])
def test_noise_has_the_published_statistics(side: int, step: int) -> None:
    gray = np.full((side, side, 3), 127, dtype=np.uint8)
    column = 1 if side == 32 else 0
    sigma = PUBLISHED["gaussian noise"][column][step]
    normal = BY_NAME["gaussian noise"].function(gray / 255, np.random.default_rng(1), 1.0, sigma)
    assert normal.std() == pytest.approx(sigma, rel=0.06)
    assert normal.mean() == pytest.approx(127 / 255, abs=4 * sigma / gray.size**0.5)
    photons = PUBLISHED["shot noise"][column][step]
    shot = BY_NAME["shot noise"].function(gray / 255, np.random.default_rng(1), 1.0, photons)
    assert shot.var() == pytest.approx(127 / 255 / photons, rel=0.12)
    np.testing.assert_allclose(shot * photons, np.rint(shot * photons), atol=1e-9)
    share = PUBLISHED["impulse noise"][column][step]
    impulse = apply("impulse noise", gray, step)
    assert set(np.unique(impulse)) == {0, 127, 255}
    assert (impulse != 127).mean() == pytest.approx(share, abs=4 * (share / gray.size) ** 0.5)
    assert (impulse == 255).sum() == pytest.approx((impulse == 0).sum(), rel=0.5)


def test_brightness_is_the_value_of_hsv() -> None:
    image = photo(12, 17)
    image[0, 0], image[0, 1] = 0, (250, 10, 0)
    expected = np.empty(image.shape)
    for row, column in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[row, column] / 255))
        expected[row, column] = np.array(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.15))) * 255
    close(apply("brightness", image, 2), expected, 0.51)


def test_contrast_shrinks_the_distance_to_the_mean_of_each_channel() -> None:
    image = photo(12, 17)
    mean = image.reshape(-1, 3).astype(float).mean(axis=0)
    close(apply("contrast", image, 4), mean + 0.15 * (image - mean), 0.51)


@pytest.mark.parametrize(("side", "quality"), [(32, 58), (224, 15)])
def test_jpeg_is_that_of_pillow_at_the_published_quality(side: int, quality: int) -> None:
    file, image = io.BytesIO(), photo(side, side)
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    np.testing.assert_array_equal(apply("JPEG compression", image, 2), np.asarray(Image.open(file)))


@pytest.mark.parametrize(("side", "coarse"), [(32, 27), (224, 89)])
def test_pixelate_averages_boxes_and_repeats_them(side: int, coarse: int) -> None:
    picture, box = Image.fromarray(photo(side, side)), Image.Resampling.BOX
    expected = picture.resize((coarse, coarse), box).resize((side, side), box)
    np.testing.assert_array_equal(apply("pixelate", np.asarray(picture), 2), np.asarray(expected))


def naive_disk(radius: float, sigma: float) -> NDArray[np.float64]:
    """Return the published kernel of defocus blur: a disk on at least 17 x 17 points, a Gaussian of 3 or 5 points."""
    half, reach = (8, 1) if radius <= 8 else (int(radius), 2)
    count = 2 * half + 1
    disk = np.array(
        [[float((x - half) ** 2 + (y - half) ** 2 <= radius**2) for x in range(count)] for y in range(count)]
    )
    disk /= disk.sum()
    weights = np.array([math.exp(-(k**2) / (2 * sigma**2)) for k in range(-reach, reach + 1)])
    weights /= weights.sum()
    smooth = np.zeros_like(disk)
    for y, x in np.ndindex(disk.shape):
        for j, i in np.ndindex(len(weights), len(weights)):
            # The border is mirrored without repeating the edge.
            row, column = ((count - 1) - abs((count - 1) - abs(v)) for v in (y + j - reach, x + i - reach))
            smooth[y, x] += weights[j] * weights[i] * disk[row, column]
    return smooth


@pytest.mark.parametrize(("radius", "sigma"), [*PUBLISHED["defocus blur"][0], *PUBLISHED["defocus blur"][1]])
def test_defocus_kernel_is_the_published_disk(radius: float, sigma: float) -> None:
    point = np.zeros((61, 61, 1))
    point[30, 30] = 1
    found = BY_NAME["defocus blur"].function(point, np.random.default_rng(0), 1.0, radius, sigma)[..., 0]
    kernel = naive_disk(radius, sigma)
    half = len(kernel) // 2
    np.testing.assert_allclose(found[30 - half : 31 + half, 30 - half : 31 + half], kernel, atol=1e-12)
    assert found.sum() == pytest.approx(kernel.sum())


@pytest.mark.parametrize(("radius", "sigma", "angle"), [(10, 3, 30.0), (15, 8, -45.0), (6, 1.5, 0.0), (9, 2.5, 44.0)])
def test_motion_blur_averages_along_one_direction_as_imagemagick_does(
    radius: float, sigma: float, angle: float
) -> None:
    image = photo(23, 31, 2) / 255
    found = BY_NAME["motion blur"].function(image, Fixed(angle), 1.0, radius, sigma)
    width = 2 * math.ceil(radius) + 1
    weights = [math.exp(-(k * k) / (2 * sigma * sigma)) for k in range(width)]
    turn, expected = math.radians(angle), np.zeros_like(image)
    for k, weight in enumerate(weights):
        down, right = math.ceil(k * math.sin(turn) - 0.5), math.ceil(k * math.cos(turn) - 0.5)
        rows, columns = np.clip(np.arange(23) + down, 0, 22), np.clip(np.arange(31) + right, 0, 30)
        expected += weight / sum(weights) * image[rows[:, None], columns]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_zoom_blur_averages_enlarged_centers() -> None:
    image = photo(40, 60)
    pictures, factors = [image / 255], np.arange(1, 1.06, 0.01)
    for factor in factors:
        box = (30 - 30 / factor, 20 - 20 / factor, 30 + 30 / factor, 20 + 20 / factor)
        pictures.append(np.asarray(Image.fromarray(image).resize((60, 40), Image.Resampling.BILINEAR, box)) / 255)
    close(apply("zoom blur", image, 0), 255 * np.mean(pictures, axis=0), 0.6)
    flat = np.full((40, 40, 3), 93, dtype=np.uint8)
    np.testing.assert_array_equal(apply("zoom blur", flat, 4), flat)


def test_elastic_transform_without_amplitude_keeps_the_image() -> None:
    image = photo(20, 31) / 255
    found = BY_NAME["elastic transform"].function(image, np.random.default_rng(0), 1.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(found, image, atol=1e-9)


def test_elastic_transform_moves_the_corners_of_a_triangle_to_where_they_are_drawn() -> None:
    """All three corners are moved by the same 2 px down and to the right, which shifts the image."""
    image = photo(30, 30) / 255
    found = BY_NAME["elastic transform"].function(image, Fixed(2.0), 1.0, 0.0, 0.0, 2.0)
    np.testing.assert_allclose(found[4:, 4:], image[2:-2, 2:-2], atol=1e-9)


def test_glass_blur_copies_pixels_from_nearby() -> None:
    numbers = np.arange(40.0 * 50).reshape(40, 50, 1)
    found = BY_NAME["glass blur"].function(numbers, np.random.default_rng(0), 1.0, 0.0, 2, 1)[..., 0]
    rows, columns = np.divmod(np.rint(found).astype(int), 50)
    down, right = rows - np.arange(40)[:, None], columns - np.arange(50)
    assert down.min() == -2  # from below, a copy can be copied again; from above, it cannot
    assert max(abs(down[3:-3, 3:-3]).mean(), abs(right[3:-3, 3:-3]).mean()) < 3
    assert (found[3:-3, 3:-3] != numbers[3:-3, 3:-3, 0]).mean() > 0.8
    np.testing.assert_array_equal(found[:3], numbers[:3, :, 0])  # the border stays


def test_frost_and_snow_brighten_dark_images_and_fog_is_as_bright_as_the_image() -> None:
    dark = np.full((64, 64, 3), 40, dtype=np.uint8)
    for name in ("frost", "snow"):
        assert apply(name, dark, 4).mean() > 60, name
    assert apply("fog", np.zeros((32, 32, 3), dtype=np.uint8), 4).max() == 0
    image = photo(64, 64)
    foggy = apply("fog", image, 4)
    assert foggy.max() <= image.max() + 1
    assert foggy.astype(float).std() < image.astype(float).std()


def test_less_light_halves_linear_light_per_stop() -> None:
    image = photo(12, 17)
    for step, stops in enumerate(BY_NAME["less light"].strengths):
        linear = (image / 255) ** 2.2 / 2**stops
        close(apply("less light", image, step), 255 * linear ** (1 / 2.2), 0.51)


def test_less_color_ends_in_the_gray_of_pillow() -> None:
    image = photo(12, 17)
    gray = np.asarray(Image.fromarray(image).convert("L"))
    close(apply("less color", image, 4), np.stack([gray] * 3, axis=2), 1.01)
    close(apply("less color", image, 1), 0.6 * image + 0.4 * gray[..., None], 1.01)


def test_shift_moves_by_whole_pixels_and_repeats_the_edge() -> None:
    image, side = photo(40, 60), 40
    found = apply("shift", image, 3, seed=5)
    best = min(
        (float(np.abs(found[15:25, 15:45].astype(int) - image[15 + y : 25 + y, 15 + x : 45 + x]).max()), y, x)
        for y in range(-9, 10) for x in range(-9, 10)
    )  # fmt: skip
    assert best[0] == 0
    assert math.hypot(*best[1:]) == pytest.approx(0.2 * side, abs=0.8)


def test_rotation_turns_to_both_sides_by_the_given_angle() -> None:
    image = np.zeros((61, 61, 3), dtype=np.uint8)
    image[30, 30:] = 255  # a hand that points to the right
    seen = set()
    for seed in range(8):
        rows, columns = np.nonzero(apply("rotation", image, 4, seed)[..., 0] > 100)
        end = np.argmax(np.hypot(rows - 30, columns - 30))
        seen.add(round(math.degrees(math.atan2(30 - rows[end], columns[end] - 30)) / 5) * 5)
    assert seen == {-45, 45}


def test_narrower_crop_shows_the_enlarged_center() -> None:
    image = photo(40, 60)
    expected = Image.fromarray(image).resize((60, 40), Image.Resampling.BILINEAR, (15, 10, 45, 30))
    np.testing.assert_array_equal(apply("narrower crop", image, 4), np.asarray(expected))


# Kernels.


@pytest.mark.parametrize("change", KERNELS, ids=lambda change: change.name)
def test_kernels_use_the_box_and_give_the_size(change: Change) -> None:
    picture = Image.fromarray(photo(90, 120))
    picture.paste((255, 0, 0), (0, 0, 15, 90))  # outside of the box
    found = np.asarray(change.function(picture, (35, 30), box=(15.0, 0.0, 120.0, 90.0)))
    assert found.shape == (30, 35, 3)
    assert found[:, 2:, 0].max() < 250
    expected = picture.resize((35, 30), Image.Resampling.BICUBIC, (15, 0, 120, 90))
    assert np.abs(found.astype(int) - np.asarray(expected)).mean() < 25
    assert not np.array_equal(found, np.asarray(expected))


def test_bilinear_resizing_without_antialiasing_is_that_of_torch() -> None:
    image = photo(90, 120)
    (change,) = (change for change in KERNELS if change.name.startswith("bilinear"))
    found = np.asarray(change.function(Image.fromarray(image), (35, 30), box=(0.0, 0.0, 120.0, 90.0)))
    given = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = F.interpolate(given, (30, 35), mode="bilinear", align_corners=False, antialias=False)
    close(found, expected[0].permute(1, 2, 0).numpy(), 1.01)


# All changes.


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 14, 3), (8, 12, 13), (33, 32, 3), (96, 70, 3), (1, 5, 1)])
@pytest.mark.parametrize("change", [change for change in CHANGES if change.unit], ids=lambda change: change.name)
def test_every_change_keeps_any_shape_and_depends_only_on_the_seed(change: Change, shape: tuple[int, int, int]) -> None:
    image = photo(*shape)
    before = image.copy()
    for step in range(len(change.strengths)):
        found = change(image, step, np.random.default_rng(7))
        assert found.shape == shape
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, change(image, step, np.random.default_rng(7)))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("side", [32, 100])
@pytest.mark.parametrize("change", [change for change in CHANGES if change.unit], ids=lambda change: change.name)
def test_the_strongest_change_differs_more_than_the_mildest(change: Change, side: int) -> None:
    image, size = photo(side, side), len(change.strengths)
    differences = [
        np.mean([np.abs(change(image, step, np.random.default_rng(k)).astype(int) - image).mean() for k in range(4)])
        for step in (0, size - 1)
    ]
    # The published severities are not in this order for every image, least of all those of the elastic transform.
    assert differences[1] > (0.3 if change.name == "elastic transform" else 0.8) * differences[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("change", [change for change in CHANGES if change.unit], ids=lambda change: change.name)
def test_every_change_works_at_512_px(change: Change) -> None:
    image = photo(512, 512)
    found = change(image, 4, np.random.default_rng(0))
    assert found.shape == image.shape
    assert not np.array_equal(found, image)


@pytest.mark.parametrize(
    "name", ["defocus blur", "zoom blur", "contrast", "brightness", "pixelate", "JPEG compression", "less light",
             "snow", "frost", "glass blur", "motion blur", "elastic transform", "shift", "rotation", "narrower crop"]
)  # fmt: skip
def test_each_of_many_channels_is_changed_like_a_gray_image(name: str) -> None:
    image = photo(12, 17, 5)
    found = apply(name, image, 3)
    for channel in range(5):
        single = apply(name, image[..., channel : channel + 1], 3)
        np.testing.assert_array_equal(found[..., channel : channel + 1], single)


def test_noise_differs_between_channels() -> None:
    gray = np.full((20, 20, 5), 127, dtype=np.uint8)
    for name in ("gaussian noise", "shot noise", "impulse noise"):
        found = apply(name, gray, 4)
        assert not np.array_equal(found[..., 0], found[..., 1])


def test_gray_images_have_no_color_to_lose_and_many_channels_no_other_resizing() -> None:
    names = {channels: [change.name for change in changes_for(channels)] for channels in (1, 3, 13)}
    assert names[3] == list(BY_NAME)
    assert set(names[3]) - set(names[1]) == {"less color"}
    assert set(names[3]) - set(names[13]) == {"less color", *(change.name for change in KERNELS)}


# What to do.


@pytest.mark.parametrize("change", [change for change in CHANGES if change.remedy[0]], ids=lambda change: change.name)
def test_every_option_exists_and_is_not_suggested_to_a_run_that_has_it(change: Change) -> None:
    key, value = change.remedy
    assert change.option(None) == f"--data.{key} {value}"
    plain = DataConfig(source="x", img_size=(8, 8), in_chans=3, num_classes=2)
    assert change.option(plain) == f"--data.{key} {value}"
    on = replace(plain, **{key: checked({f"data.{key}": value})[f"data.{key}"]})
    assert change.option(on) == ""


def test_another_policy_does_not_count_as_the_one_that_blurs() -> None:
    other = DataConfig(source="x", img_size=(8, 8), in_chans=3, num_classes=2, policy="randaugment")
    assert BY_NAME["glass blur"].option(other) == "--data.policy 3-augment"
    assert BY_NAME["elastic transform"].option(other) == ""


def test_nothing_is_suggested_against_noise() -> None:
    assert [BY_NAME[name].option(None) for name in ("gaussian noise", "shot noise", "impulse noise")] == ["", "", ""]
