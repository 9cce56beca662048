"""Files, folders, arrays, tensors and batches of them, in any container -> images one by one, and their pixels."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.decoding.decode import ImageLike
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.sources.image_files import images_below
from vitreous.data.sources.shards.remote import RemoteImage
from vitreous.data.sources.shards.source import ShardImage
from vitreous.data.sources.source import as_text
from vitreous.data.workers import map_in_order
from vitreous.errors import DataError, DataNotFoundError, DecodeError
from vitreous.paths import expanded
from vitreous.wording import listed, plural, printable_value

Stored = ShardImage | RemoteImage
"""An image in a tar file or at an address; its bytes are read when it is decoded."""

_DEEPEST = 3
"""Levels of containers, such as the batches of a loader."""
_OVERSHOOT = 0.1
"""How far values of float images may lie outside 0..1, as bicubic resizing makes them."""
MOST_LISTED = 5
"""Maximum number of unreadable images that a message lists."""


def list_images(paths: Iterable[Path]) -> list[Path]:
    """List image files: each given file, and all images in each given folder and its subfolders, sorted by path.

    Hidden files and run folders in a folder are skipped.

    Raises:
        DataNotFoundError: A path does not exist, or a folder contains no images.
    """
    files: list[Path] = []
    for path in (expanded(path) for path in paths):
        if path.is_dir():
            files += map(Path, images_in(path))
        elif path.is_file():
            files.append(path)
        else:
            raise DataNotFoundError(f"image={path}: no such file or folder; give images or folders of them")
    return files


def images_in(folder: Path) -> list[str]:
    """Return the paths of all images in a folder and its subfolders, sorted by path, as text to save memory.

    Raises:
        DataNotFoundError: It contains no images.
    """
    inside = [str(file) for file in images_below(folder) if file.is_file()]
    if not inside:
        raise DataNotFoundError(f"image={folder}: a folder without images; give images or a folder of them")
    return sorted(inside, key=lambda text: text.replace(os.sep, "\0"))  # a/b.png precedes a.png, as paths do


def each_image(given: Any, in_chans: int, depth: int = 0) -> Iterator[ImageLike]:
    """Yield the images in what a user passes to `predict`, one by one, as `Preprocess.pixels` takes them.

    Args:
        given: A path, encoded bytes, an open file, a PIL image, an array or a tensor; a batch `[n, …]` of arrays or
            tensors; a batch of images with their labels, as a `DataLoader` returns it; or an iterable of these. Arrays
            and tensors may have the channels first or last; floats are in 0..1.
        in_chans: Channels of the model; an axis of this length, or of length 1, 3 or 4, can be the channels.
        depth: How deep `given` lies in containers.

    Raises:
        DataError: Something else, or a shape whose meaning is not clear.
    """
    if isinstance(given, str | Path | bytes | Image.Image):
        yield given
    elif isinstance(given, bytearray | memoryview):
        yield bytes(given)
    elif isinstance(given, torch.Tensor) or (isinstance(given, np.ndarray) and given.dtype.kind not in "OUS"):
        yield from _each_array(given, in_chans)
    elif _is_labeled_batch(given):
        yield from _each_array(given[0], in_chans)
    elif hasattr(given, "read") and isinstance(content := given.read(), bytes):
        yield content
    elif isinstance(given, Iterable) and not isinstance(given, dict | io.TextIOBase) and depth < _DEEPEST:
        for item in given:
            yield from each_image(item, in_chans, depth + 1)
    else:
        raise DataError(
            f"image={printable_value(given)}: is not an image; give paths, encoded bytes, PIL images, arrays, tensors, "
            "or a list of them"
        )


def images_of(given: Any, in_chans: int) -> Iterator[ImageLike]:
    """Yield images like `each_image`, and those of a folder in place of its path. Raises like `list_images` too."""
    for image in each_image(given, in_chans):
        if isinstance(image, str | Path):
            yield from list_images([Path(image)])
        else:
            yield image


def read_batch(
    preprocess: Preprocess, images: Sequence[ImageLike | Stored], names: Sequence[str]
) -> list[torch.Tensor | str]:
    """Return the pixels of each image, or the reason why its file cannot be decoded, which begins with its name.

    Raises:
        DecodeError: An array has values without a clear meaning: not a damaged file but a mistake of the caller.
    """

    def read(position: int) -> torch.Tensor | str:
        image = images[position]
        try:
            content = image.read() if isinstance(image, Stored) else image
            return preprocess.pixels(content, where=names[position])
        except DecodeError as error:
            if isinstance(image, np.ndarray):
                raise
            return str(error)

    return map_in_order(read, len(images))


def name_of(image: ImageLike, number: int) -> str:
    """Return the path of an image, or its number in the list."""
    return as_text(image) if isinstance(image, str | Path) else f"image {number}"


def unreadable_text(errors: Sequence[str], total: int, done: str, count: int | None = None) -> str:
    """Say which images could not be read, and that the others are `done`, such as `classified`.

    `errors` may be only the first ones of `count`.
    """
    count = len(errors) if count is None else count
    left = total - count
    rest = {0: f"none is {done}", 1: f"the other one is {done}"}.get(left, f"the other {left:,} are {done}")
    return f"{count:,} of {plural(total, 'image')} could not be read ({listed(errors, MOST_LISTED, count)}); {rest}"


def _is_labeled_batch(given: Any) -> bool:
    """Return True for a batch of images and its labels."""
    if not isinstance(given, list | tuple) or len(given) != 2:
        return False
    is_batch = all(isinstance(part, torch.Tensor | np.ndarray) and part.ndim for part in given)
    return is_batch and given[0].ndim == 4 and given[1].ndim <= 2 and len(given[0]) == len(given[1])


def _each_array(given: torch.Tensor | NDArray[Any], in_chans: int) -> Iterator[NDArray[Any]]:
    """Yield one image or the images of a batch, with the channels last."""
    channels, shape = {1, 3, 4, in_chans}, tuple(given.shape)
    first, last = len(shape) > 2 and shape[-3] in channels, len(shape) > 2 and shape[-1] in {*channels, 2}
    # In NumPy channels come last. The channels of a tensor usually come first, but not if it was made from an array.
    is_ambiguous = isinstance(given, torch.Tensor) and first and last
    if len(shape) not in (2, 3, 4) or is_ambiguous or (len(shape) > 2 and not first and not last):
        raise DataError(
            f"image={type(given).__name__} of shape {list(shape)}: must be [height, width], or have "
            f"{' or '.join(map(str, sorted(channels)))} channels, either first or last; bring it into such a shape"
        )
    for image in given if len(shape) == 4 else [given]:
        array = _as_array(image) if isinstance(image, torch.Tensor) else image
        if first and not last:
            array = np.moveaxis(array, 0, 2)
        if array.dtype.kind == "f" and array.size and array.min() >= -_OVERSHOOT and array.max() <= 1 + _OVERSHOOT:
            array = array.clip(0, 1)
        yield array


def _as_array(image: torch.Tensor) -> NDArray[Any]:
    if image.layout != torch.strided or image.is_complex() or image.is_quantized or image.is_meta:
        raise DataError(f"image=tensor of {image.dtype}, {image.layout}: holds no pixels; convert it to uint8 or float")
    return (image.float() if image.is_floating_point() else image).detach().cpu().numpy()
