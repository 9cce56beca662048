"""A model file -> Predictor: weights, preprocessing and classes in one object; images -> Predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from shlex import quote
from typing import Any, Self

import torch

from vitreous.data.decoding.decode import ImageLike
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.sources.folder import is_image_name
from vitreous.data.sources.source import as_text
from vitreous.data.workers import map_in_order
from vitreous.errors import ConfigError, DamagedFileError, DecodeError, NotARunError
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import load_model, read_metadata
from vitreous.tensors import Features, Logits, Pixels, Probabilities
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder

BATCH_SIZE = 64


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        image: Which image: a path, or its number in the list.
        label: The most probable class; empty where the image could not be read.
        probability: Of that class, calibrated, in [0, 1].
        probabilities: Of every class, in the order of the model's classes.
        error: Why there is no prediction; empty where there is one.
    """

    image: str
    label: str
    probability: float
    probabilities: tuple[float, ...]
    error: str = ""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained model, ready for images as they come.

    Attributes:
        model: In evaluation mode.
        preprocess: The very one that training used.
        classes: Names, in the order of the logits.
        temperature: Logits are divided by it before the softmax.
        metadata: Everything that the model file says of itself.

    Example:
        >>> predictor = Predictor.load("runs/digits-1")  # doctest: +SKIP
        >>> predictor.predict(["seven.png"])[0].label  # doctest: +SKIP
        '7'
    """

    model: VisionTransformer
    preprocess: Preprocess
    classes: tuple[str, ...]
    temperature: float
    metadata: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Self:
        """Open a run folder, or a `model.safetensors` alone.

        Raises:
            NotARunError: There is no model at that path.
            DamagedFileError: The file is damaged, or is a model without classes and preprocessing.
        """
        file = find_model(Path(path))
        metadata, model = read_metadata(file), load_model(file)
        try:
            preprocess = Preprocess.from_dict(metadata["preprocess"])
            classes, temperature = tuple(map(str, metadata["classes"])), float(metadata["temperature"])
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise DamagedFileError(f"{file}: lacks what prediction needs ({error}); use the file of a run") from error
        shape, wanted = (preprocess.in_chans, *preprocess.img_size), (model.config.in_chans, *model.config.img_size)
        if (len(classes), shape) != (model.config.num_classes, wanted) or not 0 < temperature < inf:
            raise DamagedFileError(
                f"{file}: describes {len(classes)} classes, images of {'x'.join(map(str, shape))} and temperature "
                f"{temperature:g}; its model has {model.config.num_classes} and takes {'x'.join(map(str, wanted))}; "
                "use the file of a run"
            )
        return cls(model.to(device), preprocess, classes, temperature, metadata)

    def predict(self, images: Sequence[ImageLike]) -> list[Prediction]:
        """Classify images: paths, bytes, PIL images or uint8 arrays. One that cannot be read gets an `error`."""
        return list(self.stream(images))

    def stream(self, images: Sequence[ImageLike]) -> Iterator[Prediction]:
        """As `predict`, a batch at a time in bounded memory, in order."""
        for start in range(0, len(images), BATCH_SIZE):
            part = images[start : start + BATCH_SIZE]
            names = [_name(image, start + offset) for offset, image in enumerate(part)]
            yield from self._predict_batch(part, names)

    @torch.inference_mode()
    def logits(self, pixels: Pixels) -> Logits:
        """Uncalibrated logits, float32 on the CPU, of pixels that `preprocess.pixels` made."""
        device = next(self.model.parameters()).device
        return self.model(self.preprocess.normalize(pixels.to(device))).float().cpu()

    @torch.inference_mode()
    def features(self, pixels: Pixels) -> Features:
        """What the head is given, float32 on the CPU, of pixels that `preprocess.pixels` made."""
        images = self.preprocess.normalize(pixels.to(next(self.model.parameters()).device))
        return self.model.pooled(images).float().cpu()

    def probabilities(self, logits: Logits) -> Probabilities:
        """Calibrated probabilities."""
        return (logits / self.temperature).softmax(dim=1)

    def _predict_batch(self, images: Sequence[ImageLike], names: Sequence[str]) -> Iterator[Prediction]:
        def read(position: int) -> torch.Tensor | str:
            try:
                return self.preprocess.pixels(images[position], where=names[position])
            except DecodeError as error:
                return str(error)

        read_images = map_in_order(read, len(images))
        pixels = [image for image in read_images if not isinstance(image, str)]
        rows = iter(self.probabilities(self.logits(torch.stack(pixels))).tolist() if pixels else [])
        for name, image in zip(names, read_images, strict=True):
            if isinstance(image, str):
                yield Prediction(name, label="", probability=0.0, probabilities=(), error=image)
                continue
            row = next(rows)
            best = max(range(len(row)), key=row.__getitem__)
            yield Prediction(name, self.classes[best], row[best], tuple(row))


def find_model(path: Path) -> Path:
    """The model file of a run folder, or the file itself.

    Raises:
        NotARunError: Neither; an unfinished run, a series, a checkpoint or an image is named as such.
    """
    path = path.expanduser()
    if path.is_file() and is_image_name(path.name):
        raise NotARunError(f"run={path}: is an image; give the run first, as in `vitreous predict RUN IMAGE`")
    if path.is_file() and RunFolder(path.parent.parent).checkpoints == path.parent:
        raise NotARunError(f"run={path}: is a checkpoint, to go on with a run; give {path.parent.parent} itself")
    if path.is_file():
        return path
    folder = RunFolder(path)
    if folder.model.is_file():
        return folder.model
    if folder.config.is_file():
        raise NotARunError(f"run={path}: has no model yet; finish it with `vitreous train --resume {quote(str(path))}`")
    if SeriesFolder(path).series.is_file():
        names = sorted(member.parent.name for member in path.glob("*/model.safetensors"))
        first = quote(str(path / names[0])) if names else "its runs once they are finished"
        raise NotARunError(f"run={path}: is a series of {len(names)} finished runs; name one of them, such as {first}")
    what = "a folder without model.safetensors" if path.is_dir() else "nothing"
    raise NotARunError(f"run={path}: is no run and no model file ({what}); `vitreous train DATA` makes a run")


def _name(image: ImageLike, number: int) -> str:
    return as_text(image) if isinstance(image, str | Path) else f"image {number}"
