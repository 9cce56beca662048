"""A run folder -> Run: what was trained, and everything that can be done with it."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from vitreous.data.decoding.decode import ImageLike
    from vitreous.data.sources import Dataset
    from vitreous.use.evaluate.evaluation import Evaluation
    from vitreous.use.predict.predictor import Prediction, Predictor


class Run:
    """A finished training run.

    Imports wait until they are needed, so that `import vitreous` is quick.

    Args:
        path: The run folder, or a `model.safetensors` alone.

    Raises:
        NotARunError: There is no trained model at that path.

    Example:
        >>> import vitreous as vt
        >>> run = vt.train("digits", epochs=1)  # doctest: +SKIP
        >>> run.accuracy, run.predict("seven.png")[0].label  # doctest: +SKIP
        (0.61, '7')
    """

    def __init__(self, path: str | Path) -> None:
        from vitreous.use.predict.predictor import find_model

        self.path = Path(path).expanduser()
        self._model_file = find_model(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @cached_property
    def predictor(self) -> "Predictor":
        """Model, preprocessing and classes, loaded on first use."""
        from vitreous.use.predict.predictor import Predictor

        return Predictor.load(self._model_file)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What the model file says of itself: classes, preprocessing, architecture, metrics, recipe …"""
        from vitreous.model.weights import read_metadata

        return read_metadata(self._model_file)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits; none where the model file names none."""
        return tuple(self.metadata.get("classes", ()))

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Scores on `val` and `test`, as far as there were such images."""
        return self.metadata.get("metrics", {})

    @property
    def accuracy(self) -> float:
        """On the test images, or where there are none on the validation images; NaN without either."""
        scores = self.metrics.get("test") or self.metrics.get("val") or {}
        return float(scores.get("accuracy", "nan"))

    def predict(self, images: "ImageLike | Sequence[ImageLike]") -> "list[Prediction]":
        """Classify one image or many: paths, folders, bytes, PIL images or uint8 arrays.

        An image that cannot be read gets a prediction with an `error`.

        Raises:
            DataNotFoundError: A path that does not exist, or a folder without images.
        """
        from vitreous.use.predict.inputs import list_images

        given: list[ImageLike] = list(images) if isinstance(images, list | tuple) else [cast("ImageLike", images)]
        paths = [Path(image) for image in given if isinstance(image, str | Path)]
        return self.predictor.predict(list_images(paths) if len(paths) == len(given) else given)

    def evaluate(self, data: "str | Path | Dataset | None" = None) -> "Evaluation":
        """Score the model on its held-out images, or on other data. Raises as `use.evaluate.evaluator.evaluate`.

        A data set from Python that the run was trained on is recognised, and its held-out images are taken.
        """
        from vitreous.data.sources import open_object
        from vitreous.use.evaluate.evaluator import evaluate

        if data is None or isinstance(data, str | Path):
            return evaluate(self.path, None if data is None else str(data))
        return evaluate(self.path, open_object(data))
