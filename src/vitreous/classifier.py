"""Arrays, paths or PIL images, and labels -> a classifier with the interface of scikit-learn."""

import io
from collections.abc import Iterator, Mapping, Sequence
from math import isqrt, prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from vitreous.api import log
from vitreous.data.sources import open_object
from vitreous.errors import ConfigError, DecodeError
from vitreous.training.request import TrainRequest, with_options
from vitreous.training.start import run_training
from vitreous.use.predict.inputs import name_of
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural, printable_value

_OPTIONS = ("epochs", "pretrained", "img_size", "batch_size", "lr", "device", "seed")
_KEYS = {"data.test_ratio": 0.0, "data.on_error": "error"}
_LEAST_COLOR_SIDE = 4


class VitreousClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A Vision Transformer with scikit-learn's interface, for `Pipeline`, `cross_val_score`, `GridSearchCV` and others.

    `X` is an array `[n, height, width]` or `[n, height, width, channels]`; a list of paths, PIL images or arrays; or
    flat rows `[n, features]`, see `image_shape`. Values that are not uint8 are scaled by one range, which `fit` finds.
    A tenth of the images is held out to choose the weights and to calibrate probabilities; `data.val_ratio` in `config`
    changes that. No run folder is left. Progress is logged to the logger `vitreous`.

    Args:
        image_shape: (height, width) or (height, width, channels) of flat rows. None: square and gray if the number of
            features is a square, as 64 or 784; else one row of gray pixels.
        budget: As for `vitreous.train`, and so are all the others.
        epochs: Passes over the training images.
        model: Name of the model.
        pretrained: Weights to start from.
        img_size: Side or (height, width) in pixels.
        batch_size: Images per step.
        lr: Peak learning rate.
        device: Device to train on; the fitted model predicts on the CPU.
        seed: Seed of weights, order, augmentation and dropout.
        config: Any configuration key, such as `{"optim.weight_decay": 0.1}`.

    Attributes:
        classes_: The labels in `y`, sorted, `[classes]`.
        n_features_in_: Number of features, if `X` has flat rows.
        model_: Content of a `model.safetensors`, which `vitreous.load_run` opens once it is written to a file. A pickle
            of the classifier has these bytes and no code of this package.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> from sklearn.model_selection import cross_val_score
        >>> X, y = load_digits(return_X_y=True)
        >>> cross_val_score(VitreousClassifier(epochs=30), X, y).mean()  # doctest: +SKIP
        0.98
    """

    def __init__(
        self, *, image_shape: tuple[int, ...] | None = None, budget: str | float | None = None,
        epochs: float | None = None, model: str | None = None, pretrained: str | Path | None = None,
        img_size: int | tuple[int, int] | None = None, batch_size: int | None = None, lr: float | None = None,
        device: str | None = None, seed: int | None = None, config: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.image_shape = image_shape
        self.budget = budget
        self.epochs = epochs
        self.model = model
        self.pretrained = pretrained
        self.img_size = img_size
        self.batch_size = batch_size
        self.lr = lr
        self.device = device
        self.seed = seed
        self.config = config

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 - scikit-learn's name
        """Train a model on images and their labels, `[n]`.

        Raises:
            ValueError: `X` or `y` is not what it must be, or there is only one class.
            VitreousError: Training is not possible; `vitreous.errors` lists the errors.
        """
        X = list(X) if isinstance(X, Iterator) else X  # noqa: N806
        images, labels, is_flat = X, y, False
        if _are_images(X):
            images, labels = list(X), column_or_1d(y, warn=True)
            check_consistent_length(images, labels)
        else:
            images, labels = validate_data(self, X, y, allow_nd=True)
            is_flat, images = images.ndim == 2, self._shaped(images)
        if not is_flat:  # only rows have features
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)
        check_classification_targets(labels)
        classes, numbers = np.unique(labels, return_inverse=True)
        source = open_object(_Labeled(images, numbers.tolist(), list(map(str, classes))))
        options = {name: getattr(self, name) for name in _OPTIONS}
        with TemporaryDirectory(prefix="vitreous-") as place:
            values = _KEYS | {"data.cache": str(Path(place) / "cache")} | dict(self.config or {})
            request = TrainRequest(model=self.model, values=values, source=source, out=Path(place) / "run")
            content = run_training(with_options(request, options, self.budget), log).model.read_bytes()
        self.classes_, self.model_ = classes, content  # both or none, so that a fit which fails leaves the last model
        self._load()
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Return the calibrated probability of each class, `[n, classes]`, in the order of `classes_`.

        Raises:
            NotFittedError: `fit` was not called.
            DecodeError: A file cannot be decoded.
        """
        check_is_fitted(self, "model_")
        X = list(X) if isinstance(X, Iterator) else X  # noqa: N806
        images = X if _are_images(X) else self._shaped(validate_data(self, X, reset=False, allow_nd=True))
        named = ((name_of(image, number), _encoded(image)) for number, image in enumerate(images))
        found = list(self._predictor.stream_named(named))
        for prediction in found:
            if prediction.error:
                raise DecodeError(prediction.error)
        self._predictor.preprocess.scale.warn_of_clipped()
        return np.array([prediction.probabilities for prediction in found])

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the most probable label of each image, `[n]`. Raises as `predict_proba` does."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_predictor"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "model_" in state:
            self._load()

    def _load(self) -> None:
        """Build the predictor from `model_`, in which nothing is unpickled."""
        with TemporaryDirectory(prefix="vitreous-") as place:
            file = Path(place) / "model.safetensors"
            file.write_bytes(self.model_)
            self._predictor = Predictor.load(file)

    def _shaped(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return images as they are, and flat rows in the shape of images."""
        if array.ndim > 2:
            return array
        num_features, shape = array.shape[1], self.image_shape
        if shape is None:
            side, color_side = isqrt(num_features), isqrt(num_features // 3)
            shape = (side, side) if side**2 == num_features else (1, num_features)
            if color_side >= _LEAST_COLOR_SIDE and 3 * color_side**2 == num_features:
                raise ConfigError(
                    f"image_shape=None: {num_features} features can be color images of {color_side}x{color_side} px; "
                    f"give ({color_side}, {color_side}, 3), or (3, {color_side}, {color_side}) if channels come first"
                )
        if not _is_shape(shape) or prod(shape) != num_features:
            raise ConfigError(
                f"image_shape={printable_value(shape)}: must multiply to the {plural(num_features, 'feature')} of X; "
                "give (height, width) or (height, width, channels) of the images"
            )
        return array.reshape(len(array), *shape)


class _Labeled:
    """Images and class numbers as (image, label) pairs."""

    def __init__(self, images: Sequence[Any] | NDArray[Any], targets: list[int], classes: list[str]) -> None:
        self.images, self.targets, self.classes = images, targets, classes

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: Any, /) -> tuple[Any, int]:
        return _encoded(self.images[int(index)]), self.targets[int(index)]


def _is_shape(given: Any) -> bool:
    """Return True for 2 or 3 positive integers."""
    is_sequence = isinstance(given, tuple | list) and len(given) in (2, 3)
    return is_sequence and all(isinstance(side, int | np.integer) and side > 0 for side in given)


def _are_images(given: Any) -> bool:
    """Return True for a list, array or series of paths, encoded bytes, PIL images or arrays of images."""
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        return False
    if getattr(given, "ndim", 1) != 1:
        return False
    first = next(iter(given), None)
    return isinstance(first, str | Path | bytes | Image.Image) or (isinstance(first, np.ndarray) and first.ndim > 1)


def _encoded(image: Any) -> Any:
    """Return an array of floats as the content of a .npy file, since of an array itself, 0..1 would be 0..255."""
    if not isinstance(image, np.ndarray) or image.dtype.kind != "f":
        return image
    file = io.BytesIO()
    np.save(file, image, allow_pickle=False)
    return file.getvalue()
