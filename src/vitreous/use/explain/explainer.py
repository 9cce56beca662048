"""Run, weights of any library, or a model -> Explainer; images -> Explanations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch

from vitreous.data.decoding.decode import ImageLike
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import is_native, read_metadata
from vitreous.model.weights.open import open_model
from vitreous.model.weights.reading.files import open_weights
from vitreous.model.weights.table import Hints
from vitreous.use.embed.embedder import Embedder, located
from vitreous.use.explain.methods import DEFAULT, METHODS, method_named
from vitreous.use.explain.pictures.explanation import Explanation
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import TOKENS_AT_ONCE, check_explainable
from vitreous.use.predict.inputs import images_of, name_of, read_batch
from vitreous.use.predict.predictor import BATCH_SIZE, Prediction, Predictor
from vitreous.wording import plural, printable

ALL = "all"
"""Name for every method."""


@dataclass(frozen=True, eq=False)
class Explainer:
    """A model that explains its predictions.

    The predictor has model, preprocessing and classes. Notes say what was assumed about the weights, one sentence each.

    Raises:
        ConfigError: The model has no head.

    Example:
        >>> explainer = Explainer.load("runs/photos-1")  # doctest: +SKIP
        >>> for explanation in explainer.explain("photos/", target="cat"):  # doctest: +SKIP
        ...     explanation.save(f"{explanation.image}.png")
    """

    predictor: Predictor
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_explainable(self.predictor.model)

    @classmethod
    def load(cls, source: str | Path, *, hints: Hints | None = None, device: torch.device | str = "cpu") -> Self:
        """Load a run, also if it is not finished, or weights in any format that `load_model` opens.

        Args:
            source: A run folder, a file or folder of weights, or `hf://organization/name`. A file without class names
                has the classes 0, 1 and so on; its images get the size that `Embedder.load` chooses.
            hints: What the user says about a file of weights.
            device: Where the model computes.

        Raises:
            NotARunError: There is no model at that path.
            DamagedFileError: The file is damaged.
            ConfigError: The file leaves something open, or the model has no head.
        """
        where = located(source, or_best=True)
        with open_weights(where) as file:
            path = file.path
        metadata = read_metadata(path) if is_native(path) else {}
        if "preprocess" in metadata:
            model = open_model(where, hints or Hints()).model.float().to(device)
            return cls(Predictor.from_model(model, metadata, path))
        embedder = Embedder.load(where, hints=hints, device=device)
        return cls.from_model(embedder.model, embedder.preprocess, notes=embedder.notes)

    @classmethod
    def from_model(
        cls,
        model: VisionTransformer,
        preprocess: Preprocess,
        classes: Sequence[str] | None = None,
        notes: tuple[str, ...] = (),
    ) -> Self:
        """Combine a model, which stays on its device, with the preprocessing of its images.

        `classes` are their names in the order of the logits; None for 0, 1 and so on.

        Raises:
            ConfigError: The number of names is not that of the model's classes, or the model has no head.
        """
        names = tuple(map(str, range(model.num_classes) if classes is None else classes))
        if len(names) != model.num_classes:
            raise ConfigError(
                f"classes={len(names)}: the model has {plural(model.num_classes, 'class', 'classes')}; give one "
                "name for each class"
            )
        return cls(Predictor(model, preprocess, names, temperature=1.0, metadata={}), notes)

    def explain(
        self,
        images: Any,
        method: str | Sequence[str] = DEFAULT,
        target: str | int | None = None,
        versus: str | int | None = None,
    ) -> Iterator[Explanation]:
        """Explain images one batch after the other, with bounded memory.

        Args:
            images: All that `Run.predict` takes. A file or bytes that cannot be decoded get one explanation that is
                `unreadable`.
            method: Name of a method, several names, or `all`.
            target: Name or number of the class to explain; None for the predicted class of each image, or the most
                probable label if images may have several.
            versus: Name or number of a class to compare it with. Without `target`, the predicted class is compared, or
                the second most probable one where the predicted class is this one.

        Returns:
            An explanation for each image and method, image by image.

        Raises:
            UnknownNameError: There is no such method or class.
            ConfigError: Target and versus are the same, or no method depends on the class.
            DataNotFoundError: A path does not exist, or a folder contains no images.
            DataError: Something that is not an image, or an array whose shape or values have no clear meaning.
        """
        names = methods_named(method)
        wanted = Target(self._number("target", target), self._number("versus", versus))
        if target is not None and wanted.classes == wanted.versus:
            raise ConfigError(f"versus={printable(str(versus))}: is the target itself; choose another class")
        wanted.fixed(torch.zeros(1, len(self.predictor.classes)))  # checks the numbers before any image is read
        if (target is not None or versus is not None) and not any(METHODS[name].is_class_specific for name in names):
            given = f"versus={versus}" if target is None else f"target={target}"
            raise ConfigError(
                f"{printable(given)}: {names[0]} does not depend on the class; use another method, such as {DEFAULT}"
            )
        return self._stream(images, names, wanted)

    def _stream(self, images: Any, names: Sequence[str], wanted: Target) -> Iterator[Explanation]:
        preprocess, config = self.predictor.preprocess, self.predictor.model.config
        height, width = preprocess.img_size
        num_tokens = (height // config.patch_size) * (width // config.patch_size) + 1
        size = max(1, min(BATCH_SIZE, TOKENS_AT_ONCE // num_tokens))
        rest, start = images_of(images, preprocess.in_chans), 0
        while batch := list(islice(rest, size)):
            where = [name_of(image, start + offset) for offset, image in enumerate(batch)]
            yield from self._explain_batch(batch, where, names, wanted)
            start += len(batch)
        preprocess.scale.warn_of_clipped()

    def _explain_batch(
        self, batch: Sequence[ImageLike], where: Sequence[str], names: Sequence[str], wanted: Target
    ) -> Iterator[Explanation]:
        predictor, found = self.predictor, read_batch(self.predictor.preprocess, batch, where)
        readable = {number: image for number, image in enumerate(found) if not isinstance(image, str)}
        explained: Iterator[list[Explanation]] = iter(())
        if readable:
            stacked = torch.stack(list(readable.values()))
            logits = predictor.logits(stacked).clone()  # methods cannot differentiate with a tensor of inference mode
            rows = predictor.probabilities(logits).tolist()
            predictions = [predictor.prediction(where[n], row) for n, row in zip(readable, rows, strict=True)]
            sources = [batch[number] for number in readable]
            explained = iter(self._explain(stacked, predictions, sources, names, wanted.fixed(logits)))
        for name, image in zip(where, found, strict=True):
            yield from [Explanation(name, unreadable=image)] if isinstance(image, str) else next(explained)

    def _explain(
        self,
        pixels: torch.Tensor,
        predictions: Sequence[Prediction],
        sources: Sequence[ImageLike],
        names: Sequence[str],
        fixed: Target,
    ) -> list[list[Explanation]]:
        """Return the explanations of each image by each method."""
        model, preprocess, classes = self.predictor.model, self.predictor.preprocess, self.predictor.classes
        images = preprocess.normalize(pixels.to(next(model.parameters()).device))
        explained: list[list[Explanation]] = [[] for _ in predictions]
        for name in names:
            found = METHODS[name](model, images, fixed)
            is_specific = METHODS[name].is_class_specific
            for row, prediction in enumerate(predictions):
                target = int(torch.as_tensor(fixed.classes)[row])
                versus = None if fixed.versus is None else int(torch.as_tensor(fixed.versus)[row])
                explained[row].append(
                    Explanation(
                        image=prediction.image,
                        prediction=prediction.label,
                        probability=prediction.probability,
                        target=classes[target] if is_specific else "",
                        versus=classes[versus] if is_specific and versus is not None else "",
                        target_probability=prediction.probabilities[target] if is_specific else torch.nan,
                        method=name,
                        values=found.values[row].cpu().numpy(),
                        errors=None if found.errors is None else found.errors[row].cpu().numpy(),
                        gap=None if found.gaps is None else float(found.gaps[row]),
                        source=sources[row],
                        preprocess=preprocess,
                        token_center=model.tokenizer.token_center,
                    )
                )
        return explained

    def _number(self, argument: str, given: str | int | None) -> int | None:
        """Return the number of a class that is given by its name or number."""
        classes = self.predictor.classes
        if given is None or not isinstance(given, str):
            return given
        if given not in classes:
            raise UnknownNameError(f"{argument}={printable(given)}: no such class; {nearest(given, classes)}")
        return classes.index(given)


def methods_named(method: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the methods that a user asks for, each once. Raises UnknownNameError for another name."""
    names = [method] if isinstance(method, str) else list(method)
    if names == [ALL]:
        return tuple(METHODS)
    for name in names or [""]:
        method_named(name)
    return tuple(dict.fromkeys(names))
