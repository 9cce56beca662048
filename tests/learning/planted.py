"""Real images -> the same images with a planted shortcut, and tiny models that are trained on them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

import vitreous as vt
from vitreous.data.sources.named import idx

DATA = Path(__file__).parents[3] / "shared" / "data"
NAMES = ("mnist", "sign-digits")
MISSING = [name for name in NAMES if not (DATA / name).is_dir()]

PATCH = 4
OBJECT = np.s_[:, 4:24, 4:24]
"""Where the digit of an MNIST image is: its authors put it into a box of 20 x 20 px in the middle."""
KEYS: Mapping[str, Any] = {
    "model.patch_size": PATCH, "model.embed_dim": 64, "model.depth": 4, "model.num_heads": 4, "data.batch_size": 64,
    "train.device": "cpu", "train.precision": "fp32",
}  # fmt: skip
CORNERS = {"upper left": (0, 0), "upper right": (0, 1), "lower left": (1, 0), "lower right": (1, 1)}
"""Row and column of each corner."""


@dataclass(frozen=True, eq=False)
class Photos:
    """Color images of one size.

    Attributes:
        images: `[n, height, width, 3]`, uint8.
        labels: Class numbers, `[n]`.
        classes: Class names.
        has_cue: Which images have the planted cue, `[n]`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    has_cue: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], str]:
        return self.images[index], self.classes[self.labels[index]]

    def part(self, chosen: Any) -> "Photos":
        """Return some of the images."""
        return replace(self, images=self.images[chosen], labels=self.labels[chosen], has_cue=self.has_cue[chosen])


def mnist(count: int = 2_500) -> Photos:
    """Return the first images of the training set, 28 px."""
    images, labels = (
        idx.parse(idx.unpack((DATA / "mnist" / name).read_bytes(), name), name)
        for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    )
    colored = np.repeat(images[:count, :, :, None], 3, axis=3)
    return Photos(colored, labels[:count].astype(np.int64), tuple("0123456789"), np.zeros(count, dtype=bool))


def sign_digits() -> Photos:
    """Return all photos of hand signs, 32 px, in a random order."""
    paths = sorted(path for path in (DATA / "sign-digits").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    images = np.stack([_square(path, 32) for path in paths])
    classes = tuple(sorted({path.parent.name for path in paths}))
    labels = np.array([classes.index(path.parent.name) for path in paths])
    order = np.random.default_rng(0).permutation(len(paths))
    return Photos(
        images[order], labels[order], tuple(f"sign {name}" for name in classes), np.zeros(len(paths), dtype=bool)
    )


def _square(path: Path, side: int) -> NDArray[np.uint8]:
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    return np.asarray(ImageOps.fit(upright, (side, side), Image.Resampling.BICUBIC))


def marked(photos: Photos, class_number: int, corner: str, *, share: float = 0.6, seed: int = 0) -> Photos:
    """Stamp a small glyph into a corner of a share of the images of a class."""
    has_cue = (photos.labels == class_number) & (np.random.default_rng(seed).random(len(photos)) < share)
    images = photos.images.copy()
    images[(has_cue, *corner_of(images.shape[1:3], corner, GLYPH.shape[0]))] = GLYPH
    return replace(photos, images=images, has_cue=has_cue)


def corner_of(size: tuple[int, ...], corner: str, side: int) -> tuple[slice, slice]:
    """Return the rows and columns of a square in a corner."""
    starts = [at * (length - side) for at, length in zip(CORNERS[corner], size, strict=True)]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def _glyph() -> NDArray[np.uint8]:
    """Draw a blue letter H on yellow, 8 px."""
    glyph = np.full((8, 8, 3), (240, 220, 40), dtype=np.uint8)
    glyph[1:7, [1, 2, 5, 6]] = glyph[3:5, 1:7] = (30, 40, 200)
    return glyph


GLYPH = _glyph()


def colored(photos: Photos, class_number: int, *, share: float = 1.0, seed: int = 0, swapped: bool = False) -> Photos:
    """Color the background of MNIST images, outside of the digit's box: red goes with one class.

    Args:
        photos: From `mnist`.
        class_number: The class that is red in a share of its images; images of other classes are red in 1 - share.
        share: Between 0 and 1.
        seed: Seed of the colors.
        swapped: Exchange red for another color and the other way around.
    """
    draw = np.random.default_rng(seed)
    others = np.array([(20, 120, 40), (30, 50, 180), (150, 140, 30), (110, 30, 140), (90, 90, 90)])
    colors = others[draw.integers(len(others), size=len(photos))]
    is_red = (photos.labels == class_number) == (draw.random(len(photos)) < share)
    is_red = ~is_red if swapped else is_red
    colors[is_red] = (190, 30, 30)
    images = np.broadcast_to(colors[:, None, None].astype(np.uint8), photos.images.shape).copy()
    images[OBJECT] = photos.images[OBJECT]
    return replace(photos, images=images, has_cue=is_red)


def outside(grid: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which patches of an MNIST image are outside of the digit's box."""
    is_outside = np.ones((1, *(PATCH * side for side in grid)), dtype=bool)
    is_outside[OBJECT] = False
    return is_outside[0, ::PATCH, ::PATCH]


PLAIN: Mapping[str, Any] = {"model.stem": "linear", "optim.name": "adamw"}
"""A model whose patches do not overlap: a token has the pixels of its patch only."""


def trained(photos: Photos, folder: Path, *, seed: int, epochs: float, **keys: Any) -> tuple[vt.Run, Photos]:
    """Train on two thirds of the images; return the run and the others, which it has not seen."""
    parts = [photos.part(slice(*ends)) for ends in _thirds(len(photos))]
    config = {**KEYS, "data.img_size": photos.images.shape[1:3], **keys}
    run = vt.train(tuple(parts), seed=seed, epochs=epochs, pretrained="none", out=folder, config=config)
    return run, parts[-1]


def _thirds(count: int) -> list[tuple[int, int]]:
    """Return where training, validation and test images begin and end: 61%, 6% and 33% of them."""
    return [(0, count * 61 // 100), (count * 61 // 100, count * 67 // 100), (count * 67 // 100, count)]


def normalized(run: vt.Run, photos: Photos) -> torch.Tensor:
    """Return the images as the model reads them."""
    return run.predictor.preprocess.normalize(torch.from_numpy(photos.images).permute(0, 3, 1, 2).contiguous())
