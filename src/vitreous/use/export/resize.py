"""Photos of any size -> pixels of the model's size, as Pillow resizes them, in operations that every format has.

ONNX and PyTorch have resizing operations, but none of them gives Pillow's pixels. Bicubic resizing with antialiasing is
a weighted sum along each axis, so it is written as two matrix products here. Their weights follow from the size of the
photo, which may differ from call to call.
"""

import torch
from torch import Tensor, nn

from vitreous.data.config import Fit, ImageSize
from vitreous.use.export.page.pack import may_turn

_SUPPORT = 2.0
"""Half the width of the bicubic kernel, in pixels of the result."""


class PillowResize(nn.Module):
    """Crops, squashes or pads photos and resizes them like `Preprocess.pixels`.

    Sums are in float32, while Pillow uses fixed-point numbers of 22 bits, so a pixel may differ by one gray level.

    Args:
        img_size: Height and width of the result, px.
        fit: `crop`, `squash` or `pad`; see `Preprocess`.

    Source:
        Pillow's `Resample.c`: each pass rounds to whole gray levels, and version 13 resizes the columns of a tall image
        first; at the edges, the kernel is cut off and its weights are normalized; the box of a crop is in float32.
    """

    def __init__(self, img_size: ImageSize, fit: Fit) -> None:
        super().__init__()
        self.img_size, self.fit, self.may_turn = img_size, fit, may_turn()

    def forward(self, photos: Tensor) -> Tensor:
        """Resize photos of equal size.

        Args:
            photos: Gray levels, uint8, `[batch, height, width, channels]`.

        Returns:
            Gray levels as float32 without fractions, `[batch, channels, *img_size]`.
        """
        sides = [torch.scalar_tensor(side, dtype=torch.float64) for side in photos.shape[1:3]]
        places = self._places(*sides)
        rows, columns = (
            _weights(torch.arange(side, dtype=torch.float64), centers, step)
            for side, (centers, step, _) in zip(photos.shape[1:3], places, strict=True)
        )
        pixels = photos.permute(0, 3, 1, 2).to(torch.float32)
        if not self.may_turn:
            return _resized(pixels, columns, rows)
        fewer = [side - inner for side, (_, _, inner) in zip(sides, places, strict=True)]
        turns = (fewer[0] > 0) & (fewer[0] > 2 * fewer[1])
        turned = _resized(pixels.transpose(2, 3), rows, columns).transpose(2, 3)
        return torch.where(turns, turned, _resized(pixels, columns, rows))  # a branch could not be written in ONNX

    def _places(self, height: Tensor, width: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return, for rows and columns, the centers of the new pixels in the photo, their distance and their number."""
        zoom = torch.minimum(width / self.img_size[1], height / self.img_size[0])
        if self.fit == "pad":
            zoom = torch.minimum(self.img_size[1] / width, self.img_size[0] / height)
        found = []
        for size, to_size in zip((height, width), self.img_size, strict=True):
            numbers, start = torch.arange(to_size, dtype=torch.float64), torch.zeros_like(size)
            step, inner = size / to_size, torch.full_like(size, to_size)
            if self.fit == "crop":
                start = ((size - zoom * to_size) / 2).clamp(min=0.0)
                low, high = start.to(torch.float32), (size - start).to(torch.float32)
                start, step = low.to(torch.float64), (high - low).to(torch.float64) / to_size
            elif self.fit == "pad":
                inner = torch.round(size * zoom).clamp(1.0, to_size)
                margin = torch.floor((to_size - inner) / 2)
                numbers = torch.minimum((numbers - margin).clamp(min=0.0), inner - 1)  # repeats the pixels at the edges
                step = size / inner
            found.append((start + (numbers + 0.5) * step, step, inner))
        return found


def _resized(pixels: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Resize along the last axis and then along the one before it, with whole gray levels after each of them."""
    for weights in (columns, rows):  # a product leaves the two axes swapped
        pixels = torch.floor(pixels @ weights.T + 0.5).clamp(0.0, 255.0).transpose(2, 3)
    return pixels


def _weights(positions: Tensor, centers: Tensor, step: Tensor) -> Tensor:
    """Return the share of each pixel of the photo in each pixel of the result, `[result, photo]`, float32."""
    stretch = step.clamp(min=1.0)
    first = torch.floor(centers - _SUPPORT * stretch + 0.5)[:, None]
    last = torch.floor(centers + _SUPPORT * stretch + 0.5)[:, None]
    kernel = _bicubic(torch.abs((positions + 0.5 - centers[:, None]) / stretch))
    kernel = torch.where((positions >= first) & (positions < last), kernel, torch.zeros_like(kernel))
    return (kernel / kernel.sum(dim=1, keepdim=True)).to(torch.float32)


def _bicubic(distance: Tensor) -> Tensor:
    """Return the kernel of Keys 1981 with a = −0.5 at non-negative distances."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
