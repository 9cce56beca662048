"""Predictor -> WholeModel: one module from the pixels of photos to calibrated probabilities and `unfamiliar`."""

import numpy as np
import torch
from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.tensors import Features, Logits
from vitreous.training.fit.familiarity import Familiarity
from vitreous.use.export.resize import PillowResize
from vitreous.use.predict.predictor import Predictor


class WholeModel(nn.Module):
    """All that happens between decoded photos and their probabilities, in float32.

    Decoding stays outside: reading the file, turning it upright as its EXIF orientation says, and converting it to RGB,
    or to gray for a model with one channel.

    Args:
        predictor: Model on the CPU, preprocessing and temperature.
        known: What its second output needs; None for one output.

    Raises:
        ConfigError: The model takes images of more than 8 bits, which are scaled while they are decoded.
    """

    def __init__(self, predictor: Predictor, known: Familiarity | None = None) -> None:
        super().__init__()
        preprocess = predictor.preprocess
        if preprocess.value_range:
            limits = ",".join(f"{limit:g}" for limit in preprocess.value_range)
            raise ConfigError(
                f"data.value_range={limits}: images of more than 8 bits are scaled while they are decoded, which an "
                "exported file cannot do; use `vitreous predict` for this model"
            )
        self.predictor, self.model = predictor, predictor.model
        self.resize = PillowResize(preprocess.img_size, preprocess.fit)
        self.unfamiliar = None if known is None else Unfamiliar(known)
        self.num_outputs = 1 if known is None else 2

    def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
        """Return calibrated probabilities, float32, `[batch, classes]`; with `known` also what `Unfamiliar` gives.

        `photos` are gray levels of photos of equal size, uint8, `[batch, height, width, channels]`.
        """
        features = self.model.pooled(self.predictor.preprocess.normalize(self.resize(photos)))
        logits = self.model.head(features)
        probabilities = self.predictor.probabilities(logits)
        return (probabilities,) if self.unfamiliar is None else (probabilities, self.unfamiliar(features, logits))


class Unfamiliar(nn.Module):
    """What `Familiarity.unfamiliar` says of an image, in operations that every format has.

    Distances are between points from which their mean was subtracted, so that float32 is exact enough.
    """

    values: Tensor
    lines: Tensor
    matrix: Tensor | None
    center: Tensor
    points: Tensor

    def __init__(self, known: Familiarity) -> None:
        super().__init__()
        self.is_multilabel, self.rank = known.is_multilabel, 0
        values, percentiles, largest = known.percentiles
        # Row i is for a score that exceeds i of the values: where its line starts, at which percentile, and its slope.
        slopes = np.diff(percentiles) / np.diff(values)
        starts, bases = np.append(values[:1], values), np.concatenate([percentiles[:1], percentiles[:-1], [largest]])
        self.register_buffer("values", torch.from_numpy(values))
        self.register_buffer("lines", torch.from_numpy(np.stack([starts, bases, np.pad(slopes, 1)], axis=1)))
        if known.score != "energy":
            matrix, points, self.rank = known.reference(known.score)
            center = points.mean(dim=0)
            self.register_buffer("matrix", None if matrix is None else matrix.float())
            self.register_buffer("center", center.float())
            self.register_buffer("points", (points - center).T.float().contiguous())

    def forward(self, features: Features, logits: Logits) -> Tensor:
        """Return the percentile of each image among the validation images, float64, `[batch]`."""
        score = (self._distance(features) if self.rank else self._energy(logits)).double()
        start, percentile, slope = self.lines[(self.values < score[:, None]).sum(dim=1)].unbind(dim=1)
        return torch.round((percentile + slope * (score - start)) * 1e4) / 1e4

    def _distance(self, features: Features) -> Tensor:
        unit = features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)
        moved = (unit if self.matrix is None else unit @ self.matrix) - self.center
        squares = moved.square().sum(dim=1)[:, None] + self.points.square().sum(dim=0) - 2 * (moved @ self.points)
        return squares.topk(self.rank, dim=1, largest=False).values[:, -1].clamp(min=0.0).sqrt()

    def _energy(self, logits: Logits) -> Tensor:
        if not self.is_multilabel:
            return -logits.logsumexp(dim=1)
        return -torch.stack([logits, torch.zeros_like(logits)]).logsumexp(dim=0).sum(dim=1)
