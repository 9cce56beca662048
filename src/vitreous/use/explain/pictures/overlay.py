"""Photo, map of relevance -> the photo in gray, dimmed, with the relevance in color.

Only relevance has color. Color-blind readers can read both color maps. `inferno` is perceptually uniform and becomes
lighter with relevance, so its bright end is visible over a dimmed white shirt and over a black shoe. `coolwarm` is red
for patches that raise the score, blue for those that lower it, and gray in between, like the photo.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

_BRIGHTNESS, _UNSEEN_BRIGHTNESS = 0.65, 0.3
"""How bright the photo is under the colors, and where the model does not see it."""
_OPACITY = 0.8
"""Opacity of the strongest color; the photo remains recognizable under it."""


@dataclass(frozen=True)
class ColorScale:
    """How values become colors; 0 is always at the same place, so that a picture does not exaggerate small differences.

    It ends at `limit`, the largest absolute value, and begins at 0, or at `-limit` if it is signed.
    """

    limit: float
    is_signed: bool

    @classmethod
    def of(cls, values: Float[np.ndarray, "rows columns"], *, is_signed: bool) -> "ColorScale":
        """Return the scale on which the largest value has the strongest color; if all are 0, it ends at 1."""
        finite = np.abs(values[np.isfinite(values)])
        return cls(float(finite.max(initial=0.0)) or 1.0, is_signed)

    @property
    def colors(self) -> "Colormap":
        """The color map."""
        import matplotlib as mpl

        return mpl.colormaps["coolwarm" if self.is_signed else "inferno"]


def lay_over(photo: Image.Image, heatmap: Float[np.ndarray, "height width"], scale: ColorScale) -> Image.Image:
    """Color a photo by a map of the same size; where it is NaN, the photo is darker and has no color."""
    gray = photo.convert("L")
    seen = np.isfinite(heatmap)
    shares = (np.where(seen, heatmap, 0) / scale.limit).clip(-1, 1)
    places = (shares + 1) / 2 if scale.is_signed else shares.clip(min=0)
    table = (scale.colors(np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    colors = Image.fromarray(table[(places * 255).round().astype(np.uint8)])
    # With the square root, weak relevance can be seen too. For signed values it would draw halos, because their color
    # map is light gray around 0.
    strength = np.abs(shares) if scale.is_signed else np.sqrt(shares.clip(min=0))
    opacity = Image.fromarray((strength * (_OPACITY * 255)).round().astype(np.uint8))
    unseen = gray.point(lambda value: round(value * _UNSEEN_BRIGHTNESS))
    dimmed = gray.point(lambda value: round(value * _BRIGHTNESS))
    base = Image.composite(dimmed, unseen, Image.fromarray(seen)).convert("RGB")
    return Image.composite(colors, base, opacity)
