import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.augmentation.augment import Augment, Draw
from vitreous.seeding import derive, uniform
from vitreous.tensors import Varied

HEIGHT, WIDTH, BATCH = 9, 14, 24
SEED = derive(5, "augment", 3)
INDICES = np.arange(100, 100 + BATCH, dtype=np.int64)
DRAWS = uniform(SEED, INDICES, len(Draw)).astype(np.float64)
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (BATCH, 3, HEIGHT, WIDTH), dtype=np.uint8))

Point = tuple[float, float]


def sampled(image: NDArray[np.float64], source: Callable[[Point], Point]) -> NDArray[np.float64]:
    """Warp an image pixel by pixel: `source` maps places in the result to places in `image`, px from the center."""
    channels, height, width = image.shape
    result = np.empty_like(image)
    for row in range(height):
        for column in range(width):
            x, y = source((column + 0.5 - width / 2, row + 0.5 - height / 2))
            x = min(max(x + width / 2 - 0.5, 0.0), width - 1.0)
            y = min(max(y + height / 2 - 0.5, 0.0), height - 1.0)
            left, top = min(int(x), width - 2), min(int(y), height - 2)
            right, bottom = x - left, y - top
            for channel in range(channels):
                corner = image[channel, top : top + 2, left : left + 2]
                weights = np.outer([1 - bottom, bottom], [1 - right, right])
                result[channel, row, column] = (corner * weights).sum()
    return result


def expect(augment: Augment, source_of: Callable[[int], Callable[[Point], Point]]) -> None:
    images = augment(PIXELS, INDICES, SEED)
    assert images.dtype == torch.float32
    expected = [sampled(PIXELS[i].double().numpy(), source_of(i)) for i in range(BATCH)]
    torch.testing.assert_close(images.double(), torch.from_numpy(np.stack(expected)), atol=0.01, rtol=0)


def signed(draw: float) -> float:
    return 2 * draw - 1


def flipped(i: int) -> bool:
    return bool(DRAWS[i, Draw.FLIP] < 0.5)


def crop_of(i: int, least: float) -> tuple[float, float, float, float]:
    """Return width and height of the crop in px, and its center relative to the image's."""
    area = (least + (1 - least) * DRAWS[i, Draw.CROP_AREA]) * WIDTH * HEIGHT
    ratio = (3 / 4) ** (1 - 2 * DRAWS[i, Draw.CROP_ASPECT_RATIO])
    width = min(math.sqrt(area * ratio * WIDTH / HEIGHT), WIDTH)
    height = min(math.sqrt(area / ratio * HEIGHT / WIDTH), HEIGHT)
    x = signed(DRAWS[i, Draw.CROP_X]) * (WIDTH - width) / 2
    y = signed(DRAWS[i, Draw.CROP_Y]) * (HEIGHT - height) / 2
    return width, height, x, y


def shift_of(i: int, largest: float) -> Point:
    x, y = signed(DRAWS[i, Draw.SHIFT_X]), signed(DRAWS[i, Draw.SHIFT_Y])
    return round(largest * x * WIDTH), round(largest * y * HEIGHT)


def undo_rotation_and_zoom(point: Point, angle: float, zoom: float) -> Point:
    x, y = point
    return (
        (math.cos(angle) * x + math.sin(angle) * y) / zoom,
        (-math.sin(angle) * x + math.cos(angle) * y) / zoom,
    )


def test_augment_with_defaults_changes_nothing() -> None:
    torch.testing.assert_close(Augment()(PIXELS, INDICES, SEED), PIXELS.float(), atol=0, rtol=0)


def test_flip_mirrors_half_of_the_images_exactly() -> None:
    images = Augment(flip=True)(PIXELS, INDICES, SEED)
    for i in range(BATCH):
        expected = PIXELS[i].flip(-1) if flipped(i) else PIXELS[i]
        torch.testing.assert_close(images[i], expected.float(), atol=0, rtol=0)
    assert 0 < sum(flipped(i) for i in range(BATCH)) < BATCH


def test_shift_moves_by_whole_pixels_and_repeats_the_edge() -> None:
    images = Augment(max_shift=0.3)(PIXELS, INDICES, SEED)
    rows, columns = np.arange(HEIGHT), np.arange(WIDTH)
    for i in range(BATCH):
        x, y = shift_of(i, 0.3)
        moved = PIXELS[i][:, (rows - y).clip(0, HEIGHT - 1)][:, :, (columns - x).clip(0, WIDTH - 1)]
        torch.testing.assert_close(images[i], moved.float(), atol=0.01, rtol=0)
    assert {shift_of(i, 0.3)[0] for i in range(BATCH)} > {-2, 2}


def test_crop_equals_pillows_resized_crop() -> None:
    images = Augment(min_crop_area=0.3)(PIXELS, INDICES, SEED)
    for i in range(BATCH):
        width, height, x, y = crop_of(i, 0.3)
        left, top = WIDTH / 2 + x - width / 2, HEIGHT / 2 + y - height / 2
        box = (max(left, 0), max(top, 0), min(left + width, WIDTH), min(top + height, HEIGHT))
        for channel in range(3):
            whole = Image.fromarray(PIXELS[i, channel].numpy()).convert("F")
            part = np.array(whole.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=box))
            torch.testing.assert_close(images[i, channel], torch.from_numpy(part), atol=0.02, rtol=0)


def test_rotation_equals_pillows() -> None:
    images = Augment(max_rotate_deg=35.0)(PIXELS, INDICES, SEED)
    for i in range(BATCH):
        angle = 35 * signed(DRAWS[i, Draw.ROTATE])
        for channel in range(3):
            whole = Image.fromarray(PIXELS[i, channel].numpy()).convert("F")
            turned = np.array(whole.rotate(-angle, Image.Resampling.BILINEAR))
            # Pillow fills with black and this warp repeats the edge, so compare only the middle.
            torch.testing.assert_close(
                images[i, channel, 3:6, 4:10], torch.from_numpy(turned[3:6, 4:10]), atol=0.05, rtol=0
            )


def test_rotation_equals_a_naive_warp_everywhere() -> None:
    angle = [math.radians(35) * signed(DRAWS[i, Draw.ROTATE]) for i in range(BATCH)]
    expect(Augment(max_rotate_deg=35.0), lambda i: lambda point: undo_rotation_and_zoom(point, angle[i], 1.0))


def test_zoom_equals_a_naive_warp_if_it_shrinks_little() -> None:
    zoom = [1 + 0.19 * signed(DRAWS[i, Draw.SCALE]) for i in range(BATCH)]
    expect(Augment(max_scale=0.19), lambda i: lambda point: undo_rotation_and_zoom(point, 0.0, zoom[i]))


def test_image_that_shrinks_a_lot_is_antialiased() -> None:
    stripes = torch.from_numpy(np.tile(np.array([0, 255], dtype=np.uint8), (BATCH, 1, 48, 32)))
    images = Augment(max_scale=0.8)(stripes, INDICES, SEED)[:, 0, 22:26, 26:38]
    zoom = [1 + 0.8 * signed(DRAWS[i, Draw.SCALE]) for i in range(BATCH)]
    contrast = torch.stack([image.std() for image in images])
    shrunk = torch.tensor([factor < 0.6 for factor in zoom])
    assert 2 < int(shrunk.sum()) < BATCH - 2
    assert float(contrast[shrunk].max()) < 30
    assert float(contrast[torch.tensor([factor > 1 for factor in zoom])].min()) > 60


@pytest.mark.parametrize(("fill", "mode"), [("black", "constant"), ("reflect", "symmetric"), ("edge", "edge")])
def test_shift_fills_the_border_like_padding_and_cropping(fill: str, mode: str) -> None:
    images = Augment(max_shift=0.3, fill=fill)(PIXELS, INDICES, SEED)  # type: ignore[arg-type]
    for i in range(BATCH):
        x, y = shift_of(i, 0.3)
        padded = np.pad(PIXELS[i].numpy(), ((0, 0), (HEIGHT, HEIGHT), (WIDTH, WIDTH)), mode=mode)  # type: ignore[call-overload]
        cropped = padded[:, HEIGHT - y : 2 * HEIGHT - y, WIDTH - x : 2 * WIDTH - x]
        torch.testing.assert_close(images[i], torch.from_numpy(cropped).float(), atol=0.01, rtol=0)


def test_policies_run_in_order_after_the_warp_and_before_erasing() -> None:
    seen: list[tuple[str, torch.Tensor]] = []

    class Recorder:
        def __init__(self, name: str, shade: float) -> None:
            self.name, self.shade = name, shade

        def __call__(self, images: Varied, indices: NDArray[np.int64], seed: int) -> Varied:
            seen.append((self.name, images))
            assert (indices.tolist(), seed) == (INDICES.tolist(), SEED)
            return torch.full_like(images, self.shade)

    images = Augment(max_shift=0.3, erase_rate=1.0, policies=[Recorder("a", 3.0), Recorder("b", 7.0)])(
        PIXELS, INDICES, SEED
    )
    assert [name for name, _ in seen] == ["a", "b"]
    torch.testing.assert_close(seen[0][1], Augment(max_shift=0.3)(PIXELS, INDICES, SEED), atol=0, rtol=0)
    torch.testing.assert_close(images, torch.full_like(images, 7.0))


def test_one_matrix_equals_the_sequence_of_all_transforms() -> None:
    def source_of(i: int) -> Callable[[Point], Point]:
        width, height, center_x, center_y = crop_of(i, 0.5)
        shift_x, shift_y = shift_of(i, 0.2)
        angle = math.radians(20) * signed(DRAWS[i, Draw.ROTATE])
        zoom = 1 + 0.15 * signed(DRAWS[i, Draw.SCALE])

        def source(point: Point) -> Point:
            x, y = (-point[0] if flipped(i) else point[0]), point[1]
            x, y = undo_rotation_and_zoom((x - shift_x, y - shift_y), angle, zoom)
            return center_x + x * width / WIDTH, center_y + y * height / HEIGHT

        return source

    expect(Augment(flip=True, min_crop_area=0.5, max_shift=0.2, max_rotate_deg=20.0, max_scale=0.15), source_of)


def test_erasing_fills_one_rectangle_with_the_mean_color() -> None:
    images = Augment(erase_rate=0.6)(PIXELS, INDICES, SEED)
    for i in range(BATCH):
        expected = PIXELS[i].float()
        if DRAWS[i, Draw.ERASE] < 0.6:
            area = (0.02 + (1 / 3 - 0.02) * DRAWS[i, Draw.ERASED_AREA]) * HEIGHT * WIDTH
            ratio = 0.3 ** (1 - 2 * DRAWS[i, Draw.ERASED_ASPECT_RATIO])
            height = min(max(round(math.sqrt(area * ratio)), 1), HEIGHT)
            width = min(max(round(math.sqrt(area / ratio)), 1), WIDTH)
            top = int(DRAWS[i, Draw.ERASED_Y] * (HEIGHT - height + 1))
            left = int(DRAWS[i, Draw.ERASED_X] * (WIDTH - width + 1))
            expected[:, top : top + height, left : left + width] = PIXELS[i].float().mean(dim=(1, 2))[:, None, None]
        torch.testing.assert_close(images[i], expected, atol=1e-3, rtol=0)
    assert 0 < sum(DRAWS[:, Draw.ERASE] < 0.6) < BATCH


def test_augmentation_depends_on_seed_and_index_and_not_on_the_batch() -> None:
    augment = Augment(flip=True, min_crop_area=0.5, max_shift=0.2, max_rotate_deg=20.0, max_scale=0.3, erase_rate=0.5)
    whole = augment(PIXELS, INDICES, SEED)
    order = np.array([7, 2, 19])
    torch.testing.assert_close(augment(PIXELS[order], INDICES[order], SEED), whole[order], atol=1e-3, rtol=0)
    assert not torch.allclose(augment(PIXELS, INDICES, SEED + 1), whole)
    assert not torch.allclose(augment(PIXELS, INDICES + 1, SEED), whole)


def test_changing_one_setting_keeps_the_draws_of_the_others() -> None:
    without = Augment(max_shift=0.3)(PIXELS, INDICES, SEED)
    with_erasing = Augment(max_shift=0.3, erase_rate=0.5)(PIXELS, INDICES, SEED)
    same = (without == with_erasing).flatten(1).all(dim=1)
    torch.testing.assert_close(same, torch.from_numpy(DRAWS[:, Draw.ERASE] >= 0.5))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1)])
def test_images_one_pixel_wide_or_high_are_augmented(size: tuple[int, int]) -> None:
    augment = Augment(flip=True, min_crop_area=0.1, max_shift=0.5, max_rotate_deg=180.0, max_scale=0.9, erase_rate=1.0)
    images = augment(torch.full((3, 1, *size), 77, dtype=torch.uint8), np.arange(3, dtype=np.int64), 1)
    torch.testing.assert_close(images, torch.full((3, 1, *size), 77.0), atol=0.01, rtol=0)
