"""Source or stores -> Looks: what one pass over the decoded images keeps of each, about 1.3 kB."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.decoding.decode import Header, decode_image, reason_of
from vitreous.data.doctor.near_duplicates import SIDE_PX, Coloured, Gray
from vitreous.data.pixels.store import Store
from vitreous.data.sources import Source, Texts
from vitreous.data.workers import Progress, map_in_order
from vitreous.errors import DecodeError
from vitreous.tensors import Pixels

COLOUR_SIDE_PX = SIDE_PX // 4

_LEVELS = np.arange(256, dtype=np.float64)
_GRAY_TOLERANCE = 3
"""Grey levels by which channels of a gray image may differ after JPEG, averaged over a thumbnail's pixel."""
_BYTES_AT_ONCE = 4 << 20
"""Of a store: small enough for a processor's cache."""


@dataclass(frozen=True, eq=False)
class Looks:
    """Of each image that decodes, in the order of the source.

    Attributes:
        indices: Which sample of the source, `[n]`.
        labels: Class indices, `[n]`.
        splits: `train`, `val`, `test`, or an empty text where it is in none, `[n]`.
        contents: A number for each content: equal bytes, equal number, `[n]`.
        sizes: Upright height and width in px, `[n, 2]`.
        kinds: Format and mode of the file, `[n]`.
        means: Mean of each channel in 0..255, gray three times, `[n, 3]`.
        stds: Standard deviation of each channel, `[n, 3]`.
        gray: Thumbnails, `[n, SIDE_PX, SIDE_PX]`.
        colour: Thumbnails, `[n, COLOUR_SIDE_PX, COLOUR_SIDE_PX, 3]`.
        unreadable: Samples that do not decode: (which, why).
    """

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    splits: Texts
    contents: NDArray[np.int64]
    sizes: NDArray[np.int64]
    kinds: Texts
    means: NDArray[np.float32]
    stds: NDArray[np.float32]
    gray: Gray
    colour: Coloured
    unreadable: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def without_colour(self) -> NDArray[np.bool_]:
        """Which images show no colour, whatever their file's mode."""
        spread = self.colour.max(axis=3).astype(np.int16) - self.colour.min(axis=3)
        return spread.reshape(len(spread), -1).max(axis=1, initial=0) <= _GRAY_TOLERANCE


def look_at_source(source: Source, indices: Mapping[str, NDArray[np.int64]], progress: Progress | None = None) -> Looks:
    """Decode every sample once, by a few threads.

    Args:
        source: What to look at.
        indices: The samples of each split, as a `Survey` has them.
        progress: Called with (done, total).

    Returns:
        The looks; `unreadable` has every sample that does not decode.
    """
    gray = np.zeros((len(source), SIDE_PX, SIDE_PX), dtype=np.uint8)
    colour = np.zeros((len(source), COLOUR_SIDE_PX, COLOUR_SIDE_PX, 3), dtype=np.uint8)
    levels = np.zeros((2, len(source), 3), dtype=np.float32)

    def look(index: int) -> tuple[bytes, Header] | str:
        try:
            encoded = source.encoded(index)
            content = encoded if isinstance(encoded, bytes) else source.content(index)
            header = source.header(index, content)
            image = decode_image(encoded, where=source.describe(index), at_least=(SIDE_PX, SIDE_PX))
        except DecodeError as error:
            return reason_of(error, source.describe(index))
        levels[:, index] = _mean_std(image)
        gray[index], colour[index] = _thumbnails(image)
        return hashlib.blake2b(content, digest_size=16).digest(), header

    found = map_in_order(look, len(source), progress)
    kept = np.array([i for i, look in enumerate(found) if not isinstance(look, str)], dtype=np.int64)
    good = [look for look in found if not isinstance(look, str)]
    digests, headers = [digest for digest, _ in good], [header for _, header in good]
    all_read = len(kept) == len(source)
    return Looks(
        indices=kept,
        labels=source.labels[kept],
        splits=_splits(indices, len(source))[kept],
        contents=_numbered(np.array(digests, dtype="V16")),
        sizes=np.array([(header.height, header.width) for header in headers], dtype=np.int64).reshape(-1, 2),
        kinds=np.array([h.kind or ("gray array" if h.is_gray else "RGB array") for h in headers], dtype=np.str_),
        means=levels[0, kept],
        stds=levels[1, kept],
        gray=gray if all_read else gray[kept],
        colour=colour if all_read else colour[kept],
        unreadable=tuple((i, look) for i, look in enumerate(found) if isinstance(look, str)),
    )


def look_at_stores(stores: Mapping[str, Store]) -> Looks:
    """What stores of decoded images show, without decoding anything again.

    Sizes, kinds and contents are those of the pixels in the store: images that became equal have equal contents.

    Args:
        stores: By split; at least one, and on any device.
    """
    grays, colours, levels, digests = [], [], [], list[bytes]()
    shapes = [store.take(np.zeros(1, dtype=np.int64)).shape[1:] for store in stores.values() if len(store)]
    chunk = max(1, _BYTES_AT_ONCE // shapes[0].numel())
    for store in stores.values():
        for start in range(0, len(store), chunk):
            pixels = store.take(np.arange(start, min(start + chunk, len(store)), dtype=np.int64)).cpu()
            digests += [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels.numpy()]
            levels.append(_mean_std_of_batch(pixels))
            gray, colour = _thumbnails_of_batch(pixels)
            grays.append(gray)
            colours.append(colour)
    count = sum(map(len, stores.values()))
    means, stds = np.concatenate(levels, axis=1)
    return Looks(
        indices=np.concatenate([store.source_indices for store in stores.values()]),
        labels=np.concatenate([store.labels.cpu().numpy() for store in stores.values()]),
        splits=np.repeat(np.array(list(stores), dtype="<U5"), [len(store) for store in stores.values()]),
        contents=_numbered(np.array(digests, dtype="V16")),
        sizes=np.tile(np.array(shapes[0][1:], dtype=np.int64), (count, 1)),
        kinds=np.full(count, "gray array" if shapes[0][0] == 1 else "RGB array"),
        means=means,
        stds=stds,
        gray=np.concatenate(grays),
        colour=np.concatenate(colours),
    )


def _mean_std(image: Image.Image) -> NDArray[np.float64]:
    """Of each channel of an image of mode L or RGB, exact, `[2, 3]`."""
    counts = np.array(image.histogram(), dtype=np.float64).reshape(-1, 256)
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ _LEVELS
    variance = shares @ _LEVELS**2 - mean**2
    return np.broadcast_to(np.stack([mean, np.sqrt(variance.clip(min=0.0))]), (2, 3))


def _thumbnails(image: Image.Image) -> tuple[Gray, Coloured]:
    small = image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
    pixels = np.asarray(small)
    if pixels.ndim == 2:
        gray, pixels = pixels, np.broadcast_to(pixels[:, :, None], (SIDE_PX, SIDE_PX, 3))
    else:
        gray = np.asarray(small.convert("L"))
    side = SIDE_PX // COLOUR_SIDE_PX
    sums = pixels.reshape(COLOUR_SIDE_PX, side, COLOUR_SIDE_PX, side, 3).sum(axis=(1, 3), dtype=np.uint32)
    return gray, (sums // side**2).astype(np.uint8)


def _mean_std_of_batch(images: Pixels) -> NDArray[np.float32]:
    """As `_mean_std`, of each image, `[2, n, 3]`; in two passes, for one that is exact costs three times as much."""
    values = images.flatten(2).float()
    mean = values.mean(dim=2, keepdim=True)
    std = values.sub_(mean).square_().mean(dim=2).sqrt_()
    return torch.stack([mean[:, :, 0], std]).expand(-1, -1, 3).numpy()


def _thumbnails_of_batch(images: Pixels) -> tuple[Gray, Coloured]:
    """As `_thumbnails`, of each image."""
    size = (SIDE_PX, SIDE_PX)
    small = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True).expand(-1, 3, -1, -1).float()
    gray = (small * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1)
    colour = torch.nn.functional.avg_pool2d(small, SIDE_PX // COLOUR_SIDE_PX).permute(0, 2, 3, 1)
    return gray.round().clamp(0, 255).byte().numpy(), colour.clamp(0, 255).byte().numpy()


def _splits(indices: Mapping[str, NDArray[np.int64]], count: int) -> Texts:
    splits = np.zeros(count, dtype="<U5")
    for split, members in indices.items():
        splits[members] = split
    return splits


def _numbered(values: NDArray[np.void]) -> NDArray[np.int64]:
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)
