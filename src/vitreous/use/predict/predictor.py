"""Model file -> Predictor (weights, preprocessing and classes in one object); images -> Predictions."""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from math import inf
from pathlib import Path
from shlex import quote
from typing import Any, Self

import torch

from vitreous.data.augmentation.warp import Matrices, warp
from vitreous.data.decoding.decode import ImageLike
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.label_sets import join_labels
from vitreous.data.sources.image_files import is_image_name
from vitreous.errors import ConfigError, DamagedFileError, NotARunError, PreliminaryWarning, nearest
from vitreous.model.change.trim import trim_last_block
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import is_native, load_model, read_metadata
from vitreous.model.weights.reading import hub_names
from vitreous.model.weights.reading.files import locate
from vitreous.paths import expanded
from vitreous.tensors import Logits, Pixels, Probabilities, Varied
from vitreous.training.fit.familiarity import FLAGGED, Familiarity, head_inputs, read_familiarity
from vitreous.training.fit.multilabel import predicted_labels
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.use.predict.classes import check_has_classes, thresholds_in
from vitreous.use.predict.inputs import Stored, each_image, name_of, read_batch
from vitreous.wording import plural

BATCH_SIZE = 64
_VIEWS = ((1.0, 0, 0), (0.9, 0, 0), (0.9, -1, -1), (0.9, 1, 1), (0.9, 1, -1), (0.9, -1, 1))
"""Share of each side that a view shows, and its place: -1 is left or top, 0 the center, 1 right or bottom."""


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image.

    Attributes:
        image: Path of the image, or its position in the list.
        label: The predicted class; empty if the image could not be read. If images may have several labels, all
            predicted ones, joined by `;`; empty if no label is probable enough.
        probability: Calibrated probability of that class, in [0, 1]; of the most probable one if there may be several.
        probabilities: Probability of every class, in the model's order; empty if the image could not be read.
        error: Reason why the image could not be read; empty if it could.
        labels: The predicted classes, most probable first: exactly one, or any number if images may have several.
        unfamiliar: How unlike the training images it is: its percentile among the validation images of the run, in
            [0, 1]. None if it could not be read, or if there is no `familiarity.safetensors` next to the model.
        set: Classes of which one is the true one with the wanted coverage, most probable first; None if not asked for.
        rejected: Too uncertain for the wanted accuracy, or not readable; None if not asked for.
    """

    image: str
    label: str
    probability: float
    probabilities: tuple[float, ...]
    error: str = ""
    labels: tuple[str, ...] = ()
    unfamiliar: float | None = None
    set: tuple[str, ...] | None = None
    rejected: bool | None = None

    @property
    def is_unfamiliar(self) -> bool:
        """Whether the image is unlike the training images. About 5% of images like the training images are, too."""
        return self.unfamiliar is not None and self.unfamiliar >= FLAGGED

    def as_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return plain values with the probabilities by class, without what was not asked for or is not known."""
        described = {name: value for name, value in vars(self).items() if value is not None}
        described["probabilities"] = dict(zip(classes, self.probabilities, strict=False))
        return described | ({"is_unfamiliar": self.is_unfamiliar} if self.unfamiliar is not None else {})


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained model that classifies image files.

    Attributes:
        model: The model, in evaluation mode.
        preprocess: The preprocessing that training used.
        classes: Class names, in the order of the logits.
        temperature: Number by which logits are divided before the softmax, to calibrate it.
        metadata: The metadata of the model file.
        thresholds: Probability from which each label is predicted; None if each image has one class.
        file: The model file; None if the model comes from elsewhere.
        views: Matrices of the views over which `classify` averages; None for the image as it is.

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
    thresholds: tuple[float, ...] | None = None
    file: Path | None = None
    views: Matrices | None = None

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Self:
        """Load the model of a run folder, a model file, or `hf://organization/name`.

        Raises:
            NotARunError: There is no model at that path.
            DamagedFileError: The file is damaged, or has no classes and preprocessing in its metadata.
        """
        file = find_model(Path(path), or_best=True)
        metadata = read_metadata(file)
        return cls.from_model(load_model(file).to(device), metadata, file)

    @classmethod
    def from_model(cls, model: VisionTransformer, metadata: dict[str, Any], file: Path) -> Self:
        """Combine a loaded model with the metadata of its file.

        Raises:
            NotARunError: The model knows no classes; see `check_has_classes`.
            DamagedFileError: The metadata has no classes and preprocessing, or they do not fit the model.
        """
        check_has_classes(metadata, file)
        try:
            preprocess = Preprocess.from_dict(metadata["preprocess"])
            classes, temperature = tuple(map(str, metadata["classes"])), float(metadata["temperature"])
            thresholds = thresholds_in(metadata, len(classes))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(
                f"{file}: lacks metadata for prediction ({error}); use the model file of a run"
            ) from error
        shape, wanted = (preprocess.in_chans, *preprocess.img_size), (model.config.in_chans, *model.config.img_size)
        if (len(classes), shape) != (model.config.num_classes, wanted):
            raise DamagedFileError(
                f"{file}: metadata has {plural(len(classes), 'class', 'classes')} and images of "
                f"{'x'.join(map(str, shape))}, but the model has "
                f"{plural(model.config.num_classes, 'class', 'classes')} and images of {'x'.join(map(str, wanted))}; "
                "use the model file of a run"
            )
        if metadata.get("is_preliminary"):
            warnings.warn(
                f"{file}: its run is not finished; this is the best model so far, after "
                f"{plural(int(metadata['steps']), 'step')}",
                PreliminaryWarning,
                stacklevel=2,
            )
        if not 0 < temperature < inf:
            raise DamagedFileError(
                f"{file}: metadata has temperature {temperature:g}, which must be positive and finite; "
                "use the model file of a run"
            )
        return cls(trim_last_block(model), preprocess, classes, temperature, metadata, thresholds, file)

    @property
    def logit_thresholds(self) -> torch.Tensor | float:
        """The logit from which each label is predicted, `[classes]`, if images may have several; 0 if each has one."""
        return 0.0 if self.thresholds is None else self.temperature * torch.tensor(self.thresholds).logit()

    @cached_property
    def familiarity(self) -> Familiarity | None:
        """What training images look like to the model, read on first use; None if that is not stored next to it.

        Raises:
            DamagedFileError: The file was altered, or belongs to other weights.
        """
        return None if self.file is None else read_familiarity(RunFolder(self.file.parent).familiarity, self.model)

    def predict(self, images: Any) -> list[Prediction]:
        """Classify images: all that `each_image` takes; a file or bytes that cannot be decoded get an `error`.

        Raises:
            DataError: Something that is not an image, or an array whose shape or values have no clear meaning.
            DamagedFileError: `familiarity.safetensors` was altered, or belongs to other weights.
        """
        return list(self.stream(images))

    def stream(self, images: Any) -> Iterator[Prediction]:
        """Classify images like `predict`, but yield the predictions one by one, with bounded memory."""
        given = enumerate(each_image(images, self.preprocess.in_chans))
        yield from self.stream_named((name_of(image, number), image) for number, image in given)
        self.preprocess.scale.warn_of_clipped()

    def stream_named(self, named: Iterable[tuple[str, ImageLike | Stored]]) -> Iterator[Prediction]:
        """Classify images that have names, like `stream`; clipped values are counted without a warning.

        While a GPU computes, the next batch is read. On a CPU, reading and computing would only hinder each other.
        """
        rest, most = iter(named), 1 if next(self.model.parameters()).device.type == "cpu" else 2
        waiting = deque[tuple[tuple[str, ...], Future[list[Pixels | str]]]]()
        with ThreadPoolExecutor(1, thread_name_prefix="vitreous-read") as reader:
            while True:
                while len(waiting) < most and (batch := list(islice(rest, BATCH_SIZE))):
                    names, images = zip(*batch, strict=True)
                    waiting.append((names, reader.submit(read_batch, self.preprocess, images, names)))
                if not waiting:
                    return
                names, found = waiting.popleft()
                yield from self.judge(names, found.result())

    def with_views(self, num_views: int) -> Self:
        """Average over several views of an image, also mirrored if trained so. ConfigError if there are fewer."""
        sides = (1, -1) if self.metadata.get("flip") else (1,)
        views = [[[side * k, 0, (1 - k) * x], [0, k, (1 - k) * y]] for k, x, y in _VIEWS for side in sides]
        if not 1 <= num_views <= len(views):
            raise ConfigError(f"tta={num_views}: this model has {len(views)} views of an image; use 1 to {len(views)}")
        return replace(self, views=torch.tensor(views[:num_views]) if num_views > 1 else None)

    def classify(self, pixels: Pixels, logits: Logits | None = None) -> Probabilities:
        """Return calibrated probabilities for the output of `preprocess.pixels`, `[n, classes]`; see `with_views`.

        `logits` are those of the first view, the image as it is; None computes them.
        """
        found = self.probabilities(self.logits(pixels) if logits is None else logits)
        if self.views is None:
            return found
        others = (warp(pixels.float(), matrix.expand(len(pixels), 2, 3)) for matrix in self.views[1:])
        return torch.stack([found, *(self.probabilities(self.logits(view)) for view in others)]).mean(dim=0)

    @torch.inference_mode()
    def logits(self, pixels: Pixels | Varied) -> Logits:
        """Return uncalibrated logits, float32 on the CPU, for the output of `preprocess.pixels`, `[n, classes]`."""
        device = next(self.model.parameters()).device
        return self.model(self.preprocess.normalize(pixels.to(device))).float().cpu()

    def probabilities(self, logits: Logits) -> Probabilities:
        """Return calibrated probabilities, `[n, classes]`; their rows sum to 1 if each image has one label."""
        scaled = logits / self.temperature
        return scaled.softmax(dim=1) if self.thresholds is None else scaled.sigmoid()

    def judge(self, names: Sequence[str], read: Sequence[Pixels | str]) -> Iterator[Prediction]:
        """Classify what `read_batch` returned for images with these names, as one batch; `stream` uses it too."""
        pixels = [image for image in read if not isinstance(image, str)]
        rows = self._judged(torch.stack(pixels)) if pixels else iter(())
        for name, image in zip(names, read, strict=True):
            if isinstance(image, str):
                yield Prediction(name, label="", probability=0.0, probabilities=(), error=image)
                continue
            yield self.prediction(name, *next(rows))

    def _judged(self, pixels: Pixels) -> Iterator[tuple[list[float], float | None]]:
        """Yield the probabilities of each image, and how unlike the training images it is."""
        images = self.preprocess.normalize(pixels.to(next(self.model.parameters()).device))
        features, logits = head_inputs(self.model, [images])
        known = self.familiarity
        unfamiliar = [None] * len(logits) if known is None else known.unfamiliar(features, logits).tolist()
        yield from zip(self.classify(pixels, logits).tolist(), unfamiliar, strict=True)

    def prediction(self, name: str, row: Sequence[float], unfamiliar: float | None = None) -> Prediction:
        """Return the prediction for an image with this name and these probabilities of the classes."""
        best = max(range(len(row)), key=row.__getitem__)
        found = [best] if self.thresholds is None else predicted_labels(row, self.thresholds)
        label = join_labels(self.classes[number] for number in sorted(found))
        labels = tuple(self.classes[number] for number in found)
        return Prediction(name, label, row[best], tuple(row), labels=labels, unfamiliar=unfamiliar)


def find_model(path: Path, *, or_best: bool = False) -> Path:
    """Return the model file of a run folder or of `hf://organization/name`, or the path itself if it is a file.

    `or_best` takes the best model so far if the run is not finished.

    Raises:
        NotARunError: There is no model; the message names an unfinished run, a series, a checkpoint or an image.
    """
    path = expanded(path)
    if hub_names.name_in(path) is not None:
        return locate(path)
    if path.is_file() and is_image_name(path.name):
        raise NotARunError(f"run={path}: is an image; give the run first, as in `vitreous predict RUN IMAGE`")
    if path.is_file() and RunFolder(path.parent.parent).checkpoints == path.parent:
        raise NotARunError(f"run={path}: is a checkpoint, not a model; give the run folder {path.parent.parent}")
    if path.is_file():
        return path
    folder = RunFolder(path)
    if folder.model.is_file():
        return folder.model
    best = folder.find_preliminary() if or_best else None
    if best is not None and is_native(best):
        return best
    if folder.config.is_file():
        raise NotARunError(
            f"run={path}: is not finished; continue it with `vitreous train --resume {quote(str(path))}`"
        )
    if SeriesFolder(path).series.is_file():
        names = sorted(member.parent.name for member in path.glob("*/model.safetensors"))
        way_out = f"give one of them, e.g. {quote(str(path / names[0]))}" if names else "wait until a run is finished"
        raise NotARunError(f"run={path}: is a series with {plural(len(names), 'finished run')}; {way_out}")
    if path.is_dir():
        raise NotARunError(f"run={path}: contains no model.safetensors; give a run folder that `vitreous train` made")
    runs = [str(model.parent) for model in path.parent.glob("*/model.safetensors")]
    way_out = nearest(str(path), runs) if runs else "train a model with `vitreous train DATA`"
    raise NotARunError(f"run={path}: does not exist; {way_out}")
