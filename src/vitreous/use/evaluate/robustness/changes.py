"""Image, strength -> changed image: 15 common corruptions, less light, less color, another place, another resizing.

Of other than 3 channels, each is changed like a gray image; snow, frost, fog, glass and geometry are the same in all.

Source:
    Common corruptions: Hendrycks & Dietterich 2019 (1903.12261), with the parameters of their code for images of 224 px
    (ImageNet-C) and of 32 px (CIFAR-10-C). Other sizes take those that are nearer as a ratio; lengths are scaled to the
    shorter side. Differences: the ice of `frost` is generated, because their photos cannot be shipped; zooms keep the
    exact center; `elastic transform` interpolates once; levels are rounded; the result is not saved as a JPEG.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter, map_coordinates
from scipy.signal import fftconvolve

from vitreous.data.config import DataConfig

Values = NDArray[np.float64]
"""An image from 0 (black) to 1 (white), `[height, width, channels]`; or a kernel, `[height, width]`."""
SEVERITY, _COLOR, _JITTER, _BLUR = "severity", "less color", ("color_jitter", "0.4"), ("policy", "3-augment")


@dataclass(frozen=True)
class Change:
    """A way in which photos can differ from those of the data set.

    Attributes:
        name: What it is called.
        function: Changes an image of 8 bits, given random numbers, its size relative to the usual one, and parameters;
            or, without a `unit`, resizes a photo, given the new size and the box of the photo to show.
        table: Parameters of each strength, mild ones first.
        small: The same for images of 32 px; empty if size does not matter.
        unit: Unit of the strengths.
        remedy: Key of `data` and value that train with such images; empty if no augmentation does.
    """

    name: str
    function: Callable[..., Any]
    table: str = "1"
    small: str = ""
    unit: str = SEVERITY
    remedy: tuple[str, str] = ("", "")

    @property
    def strengths(self) -> list[float]:
        """The strengths that are tested: severities, or the parameter itself."""
        return [1, 2, 3, 4, 5] if self.unit == SEVERITY else [float(strength) for strength in self.table.split(", ")]

    def __call__(self, image: NDArray[np.uint8], step: int, draw: Generator) -> NDArray[np.uint8]:
        """Change an image, `[height, width, channels]`, with one of the strengths, counted from 0."""
        side = min(image.shape[:2])
        table, usual_px = (self.small, 32) if self.small and side**2 < 32 * 224 else (self.table, 224)
        changed = self.function(image / 255, draw, side / usual_px, *map(float, table.split(", ")[step].split()))
        return np.rint(changed.clip(0, 1) * 255).astype(np.uint8)

    def option(self, trained: DataConfig | None) -> str:
        """Return the option that trains with such images; empty if there is none, or if a run was trained with it."""
        key, value = self.remedy
        usual, now = (getattr(config, key, "") for config in (DataConfig, trained))
        is_on = trained is not None and (str(now) == value or (key != "policy" and now != usual))
        return f"--data.{key} {value}" if key and not is_on else ""


def _through_pillow(image: Values, change: Callable[[Image.Image], Image.Image]) -> Values:
    """Apply a function of Pillow to an image; to each channel as a gray image if there are other than 3."""
    pixels = np.rint(image * 255).astype(np.uint8)
    planes = [pixels] if pixels.shape[2] == 3 else np.moveaxis(pixels, 2, 0)
    return np.dstack([np.asarray(change(Image.fromarray(np.ascontiguousarray(plane)))) for plane in planes]) / 255


def _by_pillow(change: Callable[[Image.Image, float], Image.Image]) -> Callable[..., Values]:
    return lambda image, draw, scale, number: _through_pillow(image, lambda picture: change(picture, number))


def _filter(image: Values, kernel: Values, mode: Any) -> Values:
    """Correlate each channel with a square kernel of odd sides; `mode` of `np.pad` continues the image."""
    margins = [(len(kernel) // 2,) * 2] * 2
    return fftconvolve(np.pad(image, [*margins, (0, 0)], mode), kernel[::-1, ::-1, None], mode="valid", axes=(0, 1))


def _luma(image: Values) -> Values:
    return image @ np.array([[0.299], [0.587], [0.114]]) if image.shape[2] == 3 else image


def _defocus_blur(image: Values, draw: Generator, scale: float, radius: float, smoothing: float) -> Values:
    reach, half = ceil((1 if radius <= 8 else 2) * scale), ceil(max(8.0, radius) * scale)
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1]
    disk = (rows**2 + columns**2 <= (radius * scale) ** 2).astype(np.float64)
    return _filter(image, gaussian_filter(disk / disk.sum(), smoothing * scale, mode="mirror", radius=reach), "reflect")


def _glass_blur(image: Values, draw: Generator, scale: float, sigma: float, reach: float, rounds: float) -> Values:
    (height, width, channels), most = image.shape, max(1, round(reach * scale))
    places = np.add.outer(np.arange(height - most, most, -1) * width, np.arange(width - most, most, -1)).ravel()
    taken, smooth = list(range(height * width)), (sigma * scale, sigma * scale, 0)
    for _ in range(int(rounds)):
        down, right = draw.integers(-most, most, (2, len(places)))
        # One after the other, because a pixel can move on. As in the published images, it is copied, not exchanged.
        for place, source in zip(places.tolist(), (places + down * width + right).tolist(), strict=True):
            taken[place] = taken[source]
    shuffled = gaussian_filter(image, smooth, mode="nearest").reshape(-1, channels)[taken].reshape(image.shape)
    return gaussian_filter(shuffled, smooth, mode="nearest")


def _streak(radius: float, sigma: float, angle_deg: float) -> Values:
    """Return the kernel of ImageMagick's motion blur: half of a Gaussian, from the center in one direction."""
    steps, angle = np.arange(2 * ceil(radius) + 1), np.deg2rad(angle_deg)
    weights, last = np.exp(-(steps**2) / (2 * sigma**2)), len(steps) - 1
    kernel = np.zeros((2 * last + 1, 2 * last + 1))
    places = (last + np.ceil(steps * part - 0.5).astype(int) for part in (np.sin(angle), np.cos(angle)))
    np.add.at(kernel, tuple(places), weights / weights.sum())
    return kernel


def _zoom(picture: Image.Image, factor: float) -> Image.Image:
    left, top = (side * (1 - 1 / factor) / 2 for side in picture.size)
    return picture.resize(picture.size, Image.Resampling.BILINEAR, (left, top, *np.subtract(picture.size, (left, top))))


def _snow(image: Values, draw: Generator, scale: float, *parameters: float) -> Values:
    mean, sigma, zoom, threshold, radius, blur, kept = parameters
    noise = Image.fromarray(draw.normal(mean, sigma, image.shape[:2]).astype(np.float32))
    flakes = np.asarray(_zoom(noise, max(1.0, zoom * scale)), dtype=np.float64)[:, :, None]
    flakes = np.where(flakes < threshold, 0, flakes).clip(0, 1)
    flakes = _filter(flakes, _streak(radius * scale, blur * scale, draw.uniform(-135, -45)), "edge")
    whitened = np.maximum(image, 1.5 * _luma(image) + 0.5)
    return kept * image + (1 - kept) * whitened + flakes + flakes[::-1, ::-1]


def _frost(image: Values, draw: Generator, scale: float, kept: float, amount: float) -> Values:
    """Add ice that grows along the lines where clouds have half of their height."""
    veins = [1 - np.abs(2 * _clouds(image, decay, draw) - 1) for decay in (1.15, 1.3)]
    return kept * image + amount * np.maximum(*veins) ** 5


def _clouds(image: Values, decay: float, draw: Generator) -> Values:
    """Return clouds from 0 to 1 of the size of an image, `[height, width, 1]`: diamond-square algorithm on a torus."""
    heights: NDArray[Any] = np.zeros((1, 1))
    spread = 1.0
    corners, cross = np.outer([1, 0, 1], [1, 0, 1]) / 4, np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4
    while len(heights) < max(2, *image.shape[:2]):
        heights = np.kron(heights, [[1, 0], [0, 0]])
        rows, columns = np.indices(heights.shape) % 2
        for kernel, is_new in ((corners, rows * columns == 1), (cross, rows != columns)):
            middle = convolve(heights, kernel, mode="wrap") + draw.uniform(-spread, spread, heights.shape)
            heights = np.where(is_new, middle, heights)
        spread /= decay**2
    return ((heights - heights.min()) / np.ptp(heights))[: image.shape[0], : image.shape[1], None]


def _brightness(image: Values, draw: Generator, scale: float, amount: float) -> Values:
    value = image.max(axis=2, keepdims=True) if image.shape[2] == 3 else image  # the V of HSV
    brighter = np.minimum(value + amount, 1)
    return np.where(value > 0, image * (brighter / np.where(value > 0, value, 1)), brighter)


def _elastic(image: Values, draw: Generator, scale: float, amount: float, sigma: float, corner: float) -> Values:
    height, width = image.shape[:2]
    corners = np.array([[1, 1], [1, -1], [-1, -1]]) * max(1, min(height, width) // 3) + [height // 2, width // 2]
    moved = corners + scale * draw.uniform(-corner, corner, (3, 2))
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)  # from the result to the image
    noise = draw.uniform(-1, 1, (2, height, width))
    bent = [amount * scale * gaussian_filter(axis, sigma * scale, truncate=3) for axis in noise]
    source = np.moveaxis(np.moveaxis(np.mgrid[:height, :width] + bent, 0, 2) @ back[:2] + back[2], 2, 0)
    return np.dstack([map_coordinates(plane, source, order=1, mode="mirror") for plane in np.moveaxis(image, 2, 0)])


def _pixelate(picture: Image.Image, share: float) -> Image.Image:
    width, height = (max(1, int(side * share)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX).resize(picture.size, Image.Resampling.BOX)


def _compress(picture: Image.Image, quality: float) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(quality))
    return Image.open(file)


def _shift(image: Values, draw: Generator, scale: float, percent: float) -> Values:
    (height, width), angle = image.shape[:2], draw.uniform(0, 2 * np.pi)
    down, right = (round(percent / 100 * min(height, width) * part) for part in (np.sin(angle), np.cos(angle)))
    rows, columns = (np.arange(height) + down).clip(0, height - 1), (np.arange(width) + right).clip(0, width - 1)
    return image[rows[:, None], columns]


def _rotate(image: Values, draw: Generator, scale: float, degrees: float) -> Values:
    (height, width), angle, margin = image.shape[:2], degrees * draw.choice([-1, 1]), max(image.shape[:2])
    padded = np.pad(image, [(margin, margin), (margin, margin), (0, 0)], mode="edge")
    turned = _through_pillow(padded, lambda picture: picture.rotate(angle, Image.Resampling.BILINEAR))
    return turned[margin : margin + height, margin : margin + width]


CHANGES = (
    Change("gaussian noise", lambda image, draw, scale, sigma: image + draw.normal(0, sigma, image.shape),
           "0.08, 0.12, 0.18, 0.26, 0.38", "0.04, 0.06, 0.08, 0.09, 0.1"),
    Change("shot noise", lambda image, draw, scale, photons: draw.poisson(image * photons) / photons,
           "60, 25, 12, 5, 3", "500, 250, 100, 75, 50"),
    Change("impulse noise", lambda image, draw, scale, share: np.where(
               draw.random(image.shape) < share, draw.random(image.shape) < 0.5, image),
           "0.03, 0.06, 0.09, 0.17, 0.27", "0.01, 0.02, 0.03, 0.05, 0.07"),
    Change("defocus blur", _defocus_blur, "3 0.1, 4 0.5, 6 0.5, 8 0.5, 10 0.5",
           "0.3 0.4, 0.4 0.5, 0.5 0.6, 1 0.2, 1.5 0.1", remedy=_BLUR),
    Change("glass blur", _glass_blur, "0.7 1 2, 0.9 2 1, 1 2 3, 1.1 3 2, 1.5 4 2",
           "0.05 1 1, 0.25 1 1, 0.4 1 1, 0.25 1 2, 0.4 1 2", remedy=_BLUR),
    Change("motion blur", lambda image, draw, scale, radius, sigma: _filter(
               image, _streak(radius * scale, sigma * scale, draw.uniform(-45, 45)), "edge"),
           "10 3, 15 5, 15 8, 15 12, 20 15", "6 1, 6 1.5, 6 2, 8 2, 9 2.5", remedy=_BLUR),
    Change("zoom blur", lambda image, draw, scale, end, by: np.mean(
               [image, *(_through_pillow(image, partial(_zoom, factor=x)) for x in np.arange(1.0, end, by))], axis=0),
           "1.11 0.01, 1.16 0.01, 1.21 0.02, 1.26 0.02, 1.31 0.03",
           "1.06 0.01, 1.11 0.01, 1.16 0.01, 1.21 0.01, 1.26 0.01", remedy=_BLUR),
    Change("snow", _snow, "0.1 0.3 3 0.5 10 4 0.8, 0.2 0.3 2 0.5 12 4 0.7, 0.55 0.3 4 0.9 12 8 0.7, "
           "0.55 0.3 4.5 0.85 12 8 0.65, 0.55 0.3 2.5 0.85 12 12 0.55",
           "0.1 0.2 1 0.6 8 3 0.95, 0.1 0.2 1 0.5 10 4 0.9, 0.15 0.3 1.75 0.55 10 4 0.9, "
           "0.25 0.3 2.25 0.6 12 6 0.85, 0.3 0.3 1.25 0.65 14 12 0.8", remedy=_JITTER),
    Change("frost", _frost, "1 0.4, 0.8 0.6, 0.7 0.7, 0.65 0.7, 0.6 0.75",
           "1 0.2, 1 0.3, 0.9 0.4, 0.85 0.4, 0.75 0.45", remedy=_JITTER),
    Change("fog", lambda image, draw, scale, amount, decay: (
               (image + amount * _clouds(image, decay, draw)) * (image.max() / (image.max() + amount))),
           "1.5 2, 2 2, 2.5 1.7, 2.5 1.5, 3 1.4", "0.2 3, 0.5 3, 0.75 2.5, 1 2, 1.5 1.75", remedy=_JITTER),
    Change("brightness", _brightness, "0.1, 0.2, 0.3, 0.4, 0.5", "0.05, 0.1, 0.15, 0.2, 0.3", remedy=_JITTER),
    Change("contrast", lambda image, draw, scale, amount: image.mean((0, 1)) + amount * (image - image.mean((0, 1))),
           "0.4, 0.3, 0.2, 0.1, 0.05", "0.75, 0.5, 0.4, 0.3, 0.15", remedy=_JITTER),
    Change("elastic transform", _elastic,
           "488 170.8 24.4, 488 19.52 48.8, 12.2 2.44 4.88, 17.08 2.44 4.88, 29.28 2.44 4.88",
           "0 0 2.56, 1.6 6.4 2.24, 2.56 1.92 1.92, 3.2 1.28 1.6, 3.2 0.96 0.96", remedy=("policy", "randaugment")),
    Change("pixelate", _by_pillow(_pixelate), "0.6, 0.5, 0.4, 0.3, 0.25", "0.95, 0.9, 0.85, 0.75, 0.65", remedy=_BLUR),
    Change("JPEG compression", _by_pillow(_compress), "25, 18, 15, 10, 7", "80, 65, 58, 50, 40"),
    Change("JPEG of lower quality", _by_pillow(_compress), "90, 70, 50, 30, 10", unit="quality"),
    Change("less light", lambda image, draw, scale, stops: image / 2 ** (stops / 2.2), "1, 2, 3, 4, 5", unit="stops",
           remedy=_JITTER),
    Change(_COLOR, lambda image, draw, scale, kept: _luma(image) + kept / 100 * (image - _luma(image)),
           "80, 60, 40, 20, 0", unit="% of the color", remedy=_BLUR),
    Change("shift", _shift, "5, 10, 15, 20, 25", unit="% of the side", remedy=("max_shift", "0.1")),
    Change("rotation", _rotate, "5, 10, 20, 30, 45", unit="degrees", remedy=("max_rotate_deg", "15")),
    Change("narrower crop", _by_pillow(lambda picture, kept: _zoom(picture, 100 / kept)), "90, 80, 70, 60, 50",
           unit="% of the side", remedy=("min_crop_area", "0.35")),
    Change("nearest-neighbor resizing", partial(Image.Image.resize, resample=Image.Resampling.NEAREST), unit=""),
    Change("bilinear resizing without antialiasing", lambda photo, size, box: photo.transform(
               size, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR), unit=""),
    Change("box resizing", partial(Image.Image.resize, resample=Image.Resampling.BOX), unit=""),
    Change("Lanczos resizing", partial(Image.Image.resize, resample=Image.Resampling.LANCZOS), unit=""),
)  # fmt: skip


def changes_for(in_chans: int) -> list[Change]:
    """Return the changes for images of this number of channels: only RGB can lose its color, others are not resized."""
    return [c for c in CHANGES if in_chans == 3 or (c.name != _COLOR and (c.unit or in_chans == 1))]
