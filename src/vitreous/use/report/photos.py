"""Run, its data -> small pictures of its images, if they are still those of the run; pictures that explain them."""

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
from PIL import Image

from vitreous.data.config import DataConfig
from vitreous.data.decoding.depth import Scale
from vitreous.data.sources import Source, open_source
from vitreous.data.sources.rows import is_table_name
from vitreous.data.workers import map_in_order
from vitreous.errors import ClippedWarning, VitreousError
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.doctor.pictures import data_uri, thumbnail
from vitreous.use.evaluate.outputs import Outputs, reported
from vitreous.use.explain.explainer import Explainer
from vitreous.use.predict.table import read_held_out

MOST_SIDE_PX = 160
MOST_EXPLAIN_S = 3.0
"""Time for the explanations in a report, which is part of what a time budget reserves for the end of a run."""
_MOST_MODEL_BYTES = 150_000_000
"""Models with larger files are not explained in the report: one image would take seconds on a CPU."""


@dataclass(eq=False)
class Thumbnails:
    """Makes thumbnails of images of a source, until a number of bytes is used up.

    Attributes:
        source: The images.
        scale: Of values with more than 8 bits.
        left_bytes: Bytes that further pictures may take in a page.
        num_made: Number of pictures that were made.
    """

    source: Source
    scale: Scale
    left_bytes: int
    num_made: int = 0

    def __call__(self, indices: Sequence[int], side_px: int) -> list[Image.Image | None]:
        """Return upright pictures without metadata, at most `MOST_SIDE_PX` large; None for one that is left out."""
        if self.left_bytes <= 0:
            return [None] * len(indices)
        side = min(side_px, MOST_SIDE_PX)
        found = map_in_order(lambda n: thumbnail(self.source, int(indices[n]), side, self.scale), len(indices))
        return [self.afforded(picture) for picture in found]

    def afforded(self, picture: Image.Image | None) -> Image.Image | None:
        """Return the picture if there are enough bytes left for it, and count them."""
        size = 0 if picture is None else len(data_uri(picture))
        if picture is None or size > self.left_bytes:
            return None
        self.left_bytes -= size
        self.num_made += 1
        return picture


@dataclass(eq=False)
class Overlays:
    """Explains predictions by the default method, until a time is used up.

    Attributes:
        folder: The run.
        thumbnails: Decides how many pictures a page can have.
        left_s: Seconds that further explanations may take.
    """

    folder: RunFolder
    thumbnails: Thumbnails
    left_s: float = MOST_EXPLAIN_S
    _explainer: list[Explainer] = field(default_factory=list)

    def __call__(self, indices: Sequence[int], side_px: int) -> list[Image.Image | None]:
        """Return the photos in gray with the relevance in color; None for one that is left out."""
        return [self._explain(int(index), min(side_px, MOST_SIDE_PX)) for index in indices]

    def _explain(self, index: int, side_px: int) -> Image.Image | None:
        if self.left_s <= 0 or self.folder.model.stat().st_size > _MOST_MODEL_BYTES:
            return None
        began_s = time.monotonic()
        try:
            self._explainer = self._explainer or [Explainer.load(self.folder.path)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ClippedWarning)  # training has warned of it
                (found,) = self._explainer[0].explain([self.thumbnails.source.encoded(index)])
            return self.thumbnails.afforded(found.pictures(side_px)[1])
        except VitreousError:  # the image can no longer be decoded, or the model not be explained
            return None
        finally:
            self.left_s -= time.monotonic() - began_s


def find_images(
    folder: RunFolder, config: DataConfig, outputs: Mapping[str, Outputs], source: Source | None
) -> Source | str:
    """Return the data of a run if its held-out images are the same as in the run; else why there are no photos.

    Args:
        folder: The run.
        config: Where its data was.
        outputs: What the model gives for its held-out images.
        source: The data, if the caller has it.
    """
    held_out = reported(outputs)
    if held_out is None or held_out.indices is None:
        return "the run has no record of its held-out images"
    try:
        source = open_source(config.source, config.root, config.task) if source is None else source
    except VitreousError as error:
        return str(error).partition("; ")[0]
    source.reorder_classes(held_out.classes)
    if source.classes != held_out.classes:
        return f"{source.name} has other classes now"
    for found in outputs.values():
        if found.indices is None or found.indices.max(initial=0) >= len(source):
            return f"{source.name} has fewer images than in the run"
        if not np.array_equal(source.labels[found.indices], found.true.numpy()):
            return f"{source.name} has changed since the run"
    before = (row.path for row in read_held_out(folder.predictions))
    now = map(source.describe, held_out.indices.tolist())
    if relative_names(before, config) != relative_names(now, config):
        return f"{source.name} has changed since the run"
    return source


def relative_names(paths: Iterable[str], config: DataConfig) -> list[str]:
    """Return the names of images relative to the data folder, which say nothing about the machine.

    Args:
        paths: Paths of files, absolute or relative to any folder; or names of images that are not files.
        config: Where the data was.
    """
    folder = PurePath(config.root or config.source)
    folder = folder.parent if is_table_name(folder.name) else folder
    whole, name = f"{folder.as_posix()}/", f"/{folder.name}/"
    found = []
    for path in (path.replace("\\", "/") if "\\" in str(folder) else path for path in paths):
        inside = path.removeprefix(whole) if path.startswith(whole) else f"/{path}".partition(name)[2]
        found.append(inside or path)
    return found
