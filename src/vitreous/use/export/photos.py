"""Run, optionally other data -> labeled photos, decoded as `predict` decodes them, one by one."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.decode import ImageLike, decode_channels, decode_image
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.sources import Source
from vitreous.errors import DataError, DecodeError, NotARunError, without_way_out
from vitreous.seeding import derive, permutation
from vitreous.training.folder.records import Listener
from vitreous.use.evaluate.labeled_images import LabeledImages, labeled_images
from vitreous.use.export.proof import Photo
from vitreous.use.predict.predictor import Predictor


def find_photos(
    run: Path, predictor: Predictor, data: str | Source | None, listener: Listener, split: str | None = None
) -> LabeledImages:
    """Find labeled photos like `labeled_images`.

    Raises:
        DataError: There are none, or they have changed since the run; the way out is an option of an export.
    """
    try:
        return labeled_images(run, predictor, data, split=split, listener=listener)
    except (DataError, NotARunError) as error:
        if data is not None:
            raise
        way_out = "leave out --int8" if split == "train" else "give labeled photos with --data"
        raise DataError(f"{without_way_out(error)}; {way_out}") from error


def draw_photos(images: LabeledImages, predictor: Predictor, most: int, listener: Listener) -> Iterator[Photo]:
    """Yield up to `most` photos in random order, without those that cannot be decoded, which the run has reported.

    Raises:
        DataError: None can be decoded.
    """
    source, numbers, done = images.source, images.numbers.numpy(), 0
    order = images.indices[permutation(derive(0, "export"), len(images.indices))].tolist()

    def decoded() -> Iterator[Photo]:
        for index in order:
            label: Any = numbers[source.labels[index]]
            if source.is_multilabel:
                label = np.isin(np.arange(len(predictor.classes)), label)
            with suppress(DecodeError):
                where = source.describe(index)
                yield Photo(where, decoded_pixels(source.encoded(index), where, predictor.preprocess), label)

    for done, photo in enumerate(islice(decoded(), most), start=1):
        yield photo
        listener("reading", {"what": "comparing", "done": done, "total": min(most, len(order))})
    if not done:
        raise DataError(f"{images.name}: has no photo that can be decoded; check them with `vitreous inspect`")


def decoded_pixels(image: ImageLike, where: str, settings: Preprocess) -> NDArray[np.uint8]:
    """Return the pixels of a photo, `[height, width, channels]`. A JPEG file may be decoded at a reduced size.

    Raises:
        DecodeError: It cannot be decoded; the message calls it `where`.
    """
    channels, scale = settings.in_chans, settings.scale
    if channels in (1, 3):
        decoded = decode_image(image, in_chans=channels, where=where, at_least=settings.img_size, scale=scale)
        return np.array(decoded).reshape(decoded.height, decoded.width, channels)
    return np.array(decode_channels(image, channels, where, scale))
