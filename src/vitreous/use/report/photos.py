"""Run, its data -> small pictures of its images, if they are still those of the run; pictures that explain them."""

import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

import numpy as np
from PIL import Image

from vitreous.data.config import DataConfig
from vitreous.data.decoding.depth import Scale
from vitreous.data.sources import Source, open_source
from vitreous.data.sources.rows import is_table_name
from vitreous.data.workers import map_in_order
from vitreous.errors import ClippedWarning, VitreousError, without_way_out
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.doctor.pictures import data_uri, thumbnail
from vitreous.use.evaluate.outputs import Outputs, reported
from vitreous.use.explain.explainer import Explainer
from vitreous.use.predict.table import read_held_out

MOST_SIDE_PX, MOST_MODEL_BYTES = 160, 150_000_000
"""Of a picture, and of a model that the report explains; larger ones take seconds for an image."""


@dataclass(eq=False)
class Pictures:
    """Small pictures of images, upright and without metadata; None for a picture that is left out.

    They may take `left_bytes` in a page. Explanations may take `left_s` seconds, a part of what a time budget reserves
    for the end of a run. The scale is for values with more than 8 bits.
    """

    folder: RunFolder
    source: Source
    scale: Scale
    left_bytes: int
    left_s: float = 3.0

    def photos(self, indices: Sequence[int], side_px: int) -> list[Image.Image | None]:
        """Return the images themselves, with this longer side in px, at most `MOST_SIDE_PX`."""
        side = min(side_px, MOST_SIDE_PX)
        found = map_in_order(lambda n: thumbnail(self.source, int(indices[n]), side, self.scale), len(indices))
        return [self._afforded(picture) for picture in found]

    def uris(self, index: int, *, explained: bool) -> list[str]:
        """Return a photo, and in gray with color what decided its prediction, as data URIs; none that is left out."""
        found = self.photos([index], MOST_SIDE_PX)
        found += [self._afforded(self._explain(index))] if explained else []
        return [data_uri(picture) for picture in found if picture is not None]

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer.load(self.folder.path)

    def _explain(self, index: int) -> Image.Image | None:
        if min(self.left_s, self.left_bytes) <= 0 or self.folder.model.stat().st_size > MOST_MODEL_BYTES:
            return None
        began_s = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ClippedWarning)  # training has warned of it
                (found,) = self._explainer.explain([self.source.encoded(index)])
            return found.pictures(MOST_SIDE_PX)[1]
        except VitreousError:  # the image cannot be decoded any more
            return None
        finally:
            self.left_s -= time.monotonic() - began_s

    def _afforded(self, picture: Image.Image | None) -> Image.Image | None:
        """Return the picture if there are bytes left, and count those of it."""
        if picture is None or self.left_bytes <= 0:
            return None
        self.left_bytes -= len(data_uri(picture))
        return picture


def find_images(
    folder: RunFolder, config: DataConfig, outputs: Mapping[str, Outputs], source: Source | None
) -> Source | str:
    """Return the data of a run, or `source`, if its held-out images are those of the run; else why not."""
    held_out = reported(outputs)
    if held_out is None or held_out.indices is None:
        return "the run has no record of its held-out images"
    try:
        source = open_source(config.source, config.root, config.task) if source is None else source
    except VitreousError as error:
        return without_way_out(error)
    source.reorder_classes(held_out.classes)
    pairs = [(found.indices, found.true.numpy()) for found in outputs.values() if found.indices is not None]
    if source.classes == held_out.classes and all(indices.max(initial=0) < len(source) for indices, _ in pairs):
        are_same = all(np.array_equal(source.labels[indices], true) for indices, true in pairs)
        before = relative_names((row.path for row in read_held_out(folder.predictions)), config)
        if are_same and before == relative_names(map(source.describe, held_out.indices.tolist()), config):
            return source
    return f"{source.name} has changed since the run"


def relative_names(paths: Iterable[str], config: DataConfig) -> list[str]:
    """Return the paths of images, absolute or relative to any folder, relative to the data folder.

    Images of a table may lie elsewhere; their names are relative to the folder that all of them have in common.
    """
    folder = PurePath(config.root or config.source)
    folder = folder.parent if is_table_name(folder.name) else folder
    whole, name = f"{folder}/", f"/{folder.name}/"
    names = [path[len(whole) :] if path.startswith(whole) else f"/{path}".partition(name)[2] or path for path in paths]
    outside = [PurePath(name).parent for name in names if name.startswith("/")]
    common = f"{os.path.commonpath(outside)}/" if outside else ""
    return [name.removeprefix(common) for name in names]
