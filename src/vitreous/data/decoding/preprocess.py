"""Any image -> pixels of one size -> normalized images; the same in training, evaluation, prediction and export."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from PIL import Image
from torch import Tensor

from vitreous.data.config import Channels, Fit, ImageSize, Mean, Std, check_statistics, check_value_range
from vitreous.data.decoding.decode import ImageLike, decode_channels, decode_image
from vitreous.data.decoding.depth import Scale, ValueRange
from vitreous.data.decoding.jpeg import decode_jpeg
from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.ranges import check_fields
from vitreous.tensors import Images
from vitreous.transfer import to_device


@dataclass(frozen=True)
class Preprocess:
    """The settings that turn an image into a model's input: decode, resize, normalize.

    Attributes:
        img_size: Height and width of the result, px.
        in_chans: 1 (gray), 3 (RGB), or the number of channels of other images, up to 16.
        fit: `crop` keeps the largest centered part of the right aspect ratio, `squash` ignores the aspect ratio, `pad`
            keeps the whole image and repeats its edge pixels on both sides.
        mean: Mean of each channel, for pixels in [0, 1]; None until measured.
        std: Standard deviation of each channel, above 0; None until measured.
        value_range: Values that become black and white in images of more than 8 bits; see `Scale`. None, as in files of
            earlier versions, scales each image by its own maximum.
        scale: Does that, and counts the values beyond the range.

    Raises:
        ConfigError: A value is out of range, or `mean`, `std` and `value_range` do not fit each other or `in_chans`.
        UnknownNameError: There is no such `fit`.

    Example:
        >>> preprocess = Preprocess(img_size=(2, 3), in_chans=1, mean=(0.5,), std=(0.25,))
        >>> pixels = preprocess.pixels(np.full((4, 6), 255, dtype=np.uint8))
        >>> pixels.shape, round(preprocess.normalize(pixels[None]).max().item(), 3)
        (torch.Size([1, 2, 3]), 2.0)
    """

    img_size: ImageSize
    in_chans: Channels
    fit: Fit = "crop"
    mean: Mean | None = None
    std: Std | None = None
    value_range: ValueRange | None = None
    scale: Scale = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", Scale(self.value_range))
        check_fields(self, "preprocess")
        check_statistics("preprocess", self.mean, self.std, self.in_chans)
        check_value_range("preprocess", self.value_range, self.in_chans)

    def pixels(self, image: ImageLike, where: str = "") -> UInt8[Tensor, "channels height width"]:
        """Decode and resize an image (bicubic, antialiased), also a smaller one; messages call it `where`.

        Returns:
            Pixels in 0..255, `[in_chans, *img_size]`.

        Raises:
            DecodeError: The image cannot be decoded.
        """
        shape = (*self.img_size, self.in_chans)
        # For a small image, conversion to a PIL image and back would take half of the time.
        exact = decode_jpeg(image, shape=shape) if isinstance(image, bytes) else None
        if exact is not None:
            return torch.from_numpy(exact).permute(2, 0, 1).contiguous()
        if self.in_chans in (1, 3):
            decoded = decode_image(image, in_chans=self.in_chans, where=where, at_least=self.img_size, scale=self.scale)
            array = np.array(self._resize(decoded))
        else:
            planes = np.moveaxis(decode_channels(image, self.in_chans, where, self.scale), 2, 0)
            array = np.dstack([np.array(self._resize(Image.fromarray(np.ascontiguousarray(p)))) for p in planes])
        return torch.from_numpy(array.reshape(shape)).permute(2, 0, 1).contiguous()

    def leaves_unchanged(self, shape: tuple[int, ...]) -> bool:
        """Return True if `pixels` only copies uint8 arrays of this shape, `(height, width)` or with channels last."""
        return shape == (self.img_size if self.in_chans == 1 else (*self.img_size, self.in_chans))

    def normalize(self, pixels: Shaped[Tensor, "batch channels height width"]) -> Images:
        """Return `(pixels / 255 − mean) / std` of pixels in 0..255, uint8 or float: float32 on the same device.

        Raises:
            ConfigError: `mean` and `std` are not set.
        """
        if self.mean is None or self.std is None:
            raise ConfigError(
                "preprocess.mean=None: must be set to normalize; set mean and std, e.g. from measure_mean_std"
            )
        mean = torch.tensor(self.mean, dtype=torch.float64)
        std = torch.tensor(self.std, dtype=torch.float64)
        scale, shift = 1.0 / (255.0 * std), -mean / std
        scale, shift = (to_device(v.to(torch.float32).view(-1, 1, 1), pixels.device) for v in (scale, shift))
        return torch.addcmul(shift, pixels.to(torch.float32), scale)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values for JSON or YAML; `from_dict` restores them."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.init}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """Restore what `as_dict` returned.

        Raises:
            UnknownNameError: There is no such key.
            ConfigError: A key is missing, or a value is out of range.
        """
        known = [item.name for item in fields(cls) if item.init]
        for key in values:
            if key not in known:
                raise UnknownNameError(f"preprocess.{key}={values[key]}: no such key; {nearest(key, known)}")
        for key in ("img_size", "in_chans"):
            if key not in values:
                raise ConfigError(f"preprocess.{key}: missing; it must be given")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def _resize(self, image: Image.Image) -> Image.Image:
        height, width = self.img_size
        if image.size == (width, height):
            return image
        if self.fit == "pad":
            return self._resize_and_pad(image)
        box = (0.0, 0.0, float(image.width), float(image.height))
        if self.fit == "crop":
            box = crop_box((image.height, image.width), self.img_size)
        return image.resize((width, height), Image.Resampling.BICUBIC, box=box)

    def _resize_and_pad(self, image: Image.Image) -> Image.Image:
        height, width = self.img_size
        left, top, *inner = padded_place((image.height, image.width), self.img_size)
        array = np.asarray(image.resize((inner[0], inner[1]), Image.Resampling.BICUBIC))
        margins = [(top, height - inner[1] - top), (left, width - inner[0] - left), (0, 0)]
        return Image.fromarray(np.pad(array, margins[: array.ndim], mode="edge"))


def crop_box(size: tuple[int, int], img_size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the largest centered box with the aspect ratio of `img_size`; sizes are height and width in px.

    The box is left, top, right and bottom in px, with fractions, never outside the image.
    """
    (height, width), (to_height, to_width) = size, img_size
    zoom = min(width / to_width, height / to_height)
    # Rounding may put the corner 1e-14 px outside the image, which Pillow refuses.
    left, top = max(0.0, (width - zoom * to_width) / 2), max(0.0, (height - zoom * to_height) / 2)
    return left, top, width - left, height - top


def padded_place(size: tuple[int, int], img_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, width and height in px of the whole image once it is resized and padded.

    Sizes are height and width in px.
    """
    (height, width), (to_height, to_width) = size, img_size
    zoom = min(to_width / width, to_height / height)
    inner_width, inner_height = max(1, min(to_width, round(width * zoom))), max(1, min(to_height, round(height * zoom)))
    return (to_width - inner_width) // 2, (to_height - inner_height) // 2, inner_width, inner_height
