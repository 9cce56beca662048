"""Values of patches, and the photo that they belong to -> Explanation: map, overlay, figure and text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from vitreous import atomic
from vitreous.data.decoding.decode import ImageLike, decode_channels, decode_image, read_header
from vitreous.data.decoding.depth import Scale
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.sources.source import read_image_file
from vitreous.errors import ConfigError, DecodeError
from vitreous.paths import as_path
from vitreous.use.explain.methods import METHODS, Method
from vitreous.use.explain.pictures.contact_sheet import scaled
from vitreous.use.explain.pictures.figure import PANEL_PX, Texts, draw_figure, encoded, formats
from vitreous.use.explain.pictures.finding import describe
from vitreous.use.explain.pictures.geometry import View
from vitreous.use.explain.pictures.overlay import ColorScale, lay_over
from vitreous.wording import printable, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = Float[np.ndarray, "rows columns"]

_LONGEST = 40
"""Characters of a name in a figure."""
_VISIBLE = 0.01
"""Share of the photo from which a margin that the model does not see is mentioned."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which patches of an image raise the score of a class.

    Pictures are made from the image when they are asked for, so its file has to be there still.

    Attributes:
        image: Path of the image, or its number in the list.
        prediction: The predicted class, or all predicted labels joined by `;`; empty if the image could not be read.
        probability: Probability of the predicted class, in [0, 1], as `predict` gives it: calibrated for runs. Weights
            of other libraries have no temperature, so theirs is the plain softmax.
        target: Class whose score is explained; empty for methods that do not depend on the class.
        versus: Class that it is compared with; empty for no comparison.
        target_probability: Probability of the explained class; NaN for methods that do not depend on the class.
        method: Name of the method.
        values: Value of each patch, float32; only those of one image by one method can be compared.
        errors: Standard errors of the values; None for methods without sampling.
        gap: For methods whose values should sum to a difference of scores: by how much they miss it, as a share.
        unreadable: Reason why the image could not be read, in which case there are no values and pictures; else empty.
        source: What was given as the image.
        preprocess: How it became the input of the model.
        token_center: Where the center of what a token sees lies in its patch, as a share of the side from the upper
            left corner: 0.5, or nearly 0 after a stem of convolutions.
    """

    image: str
    prediction: str = ""
    probability: float = 0.0
    target: str = ""
    versus: str = ""
    target_probability: float = np.nan
    method: str = ""
    values: Values = field(repr=False, default_factory=lambda: np.zeros((0, 0), np.float32))
    errors: Values | None = field(repr=False, default=None)
    gap: float | None = None
    unreadable: str = ""
    source: ImageLike = field(repr=False, default=b"")
    preprocess: Preprocess = field(repr=False, default=Preprocess((1, 1), 3))
    token_center: float = field(repr=False, default=0.5)

    def photo(self, at_least: tuple[int, int] | None = None) -> Image.Image:
        """Decode the image: upright, gray if the model takes one channel, else in color.

        Of images that are neither gray nor color, the first three channels are shown as red, green and blue, or the
        first one of two. With `at_least`, the height and width in px that are needed, a large JPEG is decoded at a
        reduced size.

        Raises:
            DecodeError: It could not be read, or no longer can.
        """
        if self.unreadable:
            raise DecodeError(self.unreadable)
        channels = self.preprocess.in_chans
        scale = Scale(self.preprocess.value_range)  # the scale of the preprocessing counts clipped values
        if channels in (1, 3):
            return decode_image(self.source, in_chans=channels, where=self.image, at_least=at_least, scale=scale)
        planes = decode_channels(self.source, channels, self.image, scale)
        return Image.fromarray(np.ascontiguousarray(planes[:, :, :3] if channels > 2 else planes[:, :, 0]))

    @cached_property
    def view(self) -> View:
        """Where the model's input lies in the photo. Of files, only the header is read; errors are those of `photo`."""
        if self.unreadable:
            raise DecodeError(self.unreadable)
        if isinstance(self.source, bytes | str | Path):
            content = self.source if isinstance(self.source, bytes) else read_image_file(Path(self.source))
            header = read_header(content, self.image)
            size = header.height, header.width
        else:
            size = self.photo().size[::-1]
        return View.of(size, self.preprocess.img_size, self.preprocess.fit, self.token_center)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the model's input, as shares of the photo's width and height.

        With `crop`, parts of the photo are outside. With `pad`, the box reaches beyond the photo.
        """
        return self.view.resized((1, 1)).box

    @property
    def heatmap(self) -> Float[np.ndarray, "height width"]:
        """Values in the pixels of the photo, float32, interpolated bilinearly between the centers of the tokens.

        NaN where the model does not see the photo, such as the margins that are cropped.
        """
        return self.view.map_of(self.values)

    def overlay(self) -> Image.Image:
        """Return the photo in its own size, gray and dimmed, with the relevance in color."""
        return self._lay_over(self.photo())

    def pictures(self, side_px: int, photo: Image.Image | None = None) -> tuple[Image.Image, Image.Image]:
        """Return photo and overlay with this longer side in px; small photos are enlarged and keep their pixels.

        `photo` is what the method `photo` returns; with None, the image is decoded.
        """
        shown = scaled(photo or self.photo(at_least=(side_px, side_px)), side_px)
        return shown, self._lay_over(shown)

    def plot(self, photo: Image.Image | None = None) -> "Figure":
        """Draw photo and overlay with title, color scale and a sentence on what they show, as a matplotlib figure.

        `photo` is that of `pictures`.
        """
        pictures = self.pictures(PANEL_PX, photo)
        # Shares of patches are small numbers, so they are shown in percent.
        total = float(self.values[np.isfinite(self.values)].sum())
        unit = 1.0 if self._method.is_signed else 100.0 / (total or 1.0)
        return draw_figure(pictures, self._texts(), self._scale, unit)

    def save(self, path: str | Path) -> None:
        """Save the figure that `plot` draws; the suffix chooses the format, such as .png, .pdf or .svg.

        Raises:
            ConfigError: The format is unknown, or the path cannot be a file.
            SaveError: The file could not be written.
        """
        file = as_path("path", path)
        format_ = file.suffix.lower().removeprefix(".")
        if format_ not in formats():
            raise ConfigError(f"path={path}: ends in {file.suffix or 'nothing'}; use one of .{', .'.join(formats())}")
        if not file.parent.is_dir():
            raise ConfigError(f"path={path}: the folder {file.parent} does not exist; create it first")
        atomic.write_bytes(file, encoded(self.plot(), format_))

    @property
    def finding(self) -> str:
        """Where the relevance lies, such as `most relevant: center, 43% of the relevance in 10% of the area`."""
        if self.unreadable:
            return self.unreadable
        return describe(self.values, self.view, is_signed=self._method.is_signed)

    def as_dict(self) -> Mapping[str, Any]:
        """Return everything but the values as plain values for JSON."""
        names = ("image", "method", "prediction", "probability", "target", "versus", "target_probability", "gap")
        found = {name: getattr(self, name) for name in names}
        plain = {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in found.items()}
        return plain | {"finding": self.finding, "unreadable": self.unreadable}

    def _repr_png_(self) -> bytes | None:
        """Return the figure for notebooks."""
        return None if self.unreadable else encoded(self.plot())

    def _lay_over(self, photo: Image.Image) -> Image.Image:
        heatmap = self.view.resized((photo.height, photo.width)).map_of(self.values)
        return lay_over(photo, heatmap, self._scale)

    @property
    def _method(self) -> Method:
        return METHODS[self.method]

    @property
    def _scale(self) -> ColorScale:
        return ColorScale.of(self.values, is_signed=self._method.is_signed)

    def _texts(self) -> Texts:
        predicted = f"predicted {_short(self.prediction)}" if self.prediction else "no label predicted"
        title = f"{_short(Path(self.image).name)}: {predicted} ({self.probability:.1%})"
        what = f"what raises the score of {_short(self.target)}" if self.target else "the same for every class"
        if self.target and self.target != self.prediction:
            what += f" ({self.target_probability:.1%})"
        if self.versus:
            what += f" above that of {_short(self.versus)}"
        channels = self.preprocess.in_chans
        shown = {1: "photo, in gray as the model sees it", 2: "first of 2 channels", 3: "photo"}
        sentences = (self.finding, f"{self._method.label}: {self._method.summary}")
        notes = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences]
        if max(self.box[:2]) > _VISIBLE:
            notes.append("The model does not see the dark margins.")
        scale = "effect of a patch on the score" if self._method.is_signed else "relevance, % per patch"
        default = f"channels 1 to 3 of {channels} as red, green and blue"
        return Texts(title, (shown.get(channels, default), what), " ".join(notes), scale)


def _short(name: str) -> str:
    return shortened(printable(name), _LONGEST)
