"""Training images <-> `familiarity.safetensors`; features, logits of an image -> how unlike the training images it is.

Each score is larger for images that are less like the training images; features are the input of the head.

* mahalanobis: distance to the nearest class mean under the covariance that the classes share (Lee et al. 2018,
  1807.03888), of features of length 1 (Mahalanobis++, Mueller & Hein 2025, 2505.18032). They do not shrink the
  covariance (Ledoit & Wolf 2004). We do, because there may be more features than images.
* neighbors: distance to the k-th nearest training image, of features of length 1 (Sun et al. 2022, 2204.06507).
* energy: -log sum exp(logits) (Liu et al. 2020, 2010.03759, temperature 1). With several labels per image, the sum over
  the labels of -log(1 + exp(logit)) (JointEnergy, Wang et al. 2021, 2109.14162).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitreous.errors import DamagedFileError
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.native import fingerprint
from vitreous.recipe.pace import LEAST_FAMILIAR, MOST_FAMILIAR
from vitreous.tensor_file import open_tensor_file, parsing, write_tensor_file
from vitreous.tensors import Features, Images, Logits

SCORES = {"mahalanobis": "Mahalanobis distance", "neighbors": "nearest neighbors", "energy": "energy"}
"""Scores with their names in texts, best first if a probe does not distinguish them."""
FLAGGED = 0.95
"""Percentile from which an image is flagged, so that 5% of images like the training images are."""
NEIGHBOR_SHARE = 0.005
"""The k of k-th nearest neighbors as a share of the training images. The paper takes 0.1% (ImageNet) to 0.4%."""
_WAY_OUT = "move it to another folder; images are then not compared with the training images"


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What training images look like to a model, and a score with its values for validation images.

    Attributes:
        features: Features of some training images, scaled to length 1, float16, `[n, width]`.
        groups: A number for each of them, equal for images that share a mean, `[n]`.
        is_multilabel: Images may have several labels.
        shrinkage: Weight of the mean variance in the covariance, in [0, 1].
        score: One of `SCORES`.
        known: Its values for validation images, float64, `[m]`.
    """

    features: Tensor
    groups: Tensor
    is_multilabel: bool
    shrinkage: float = 0.0
    score: str = "mahalanobis"
    known: Tensor = field(default_factory=lambda: torch.zeros(0))

    def scores(self, name: str, features: Features, logits: Logits) -> Tensor:
        """Return a score of `SCORES` for each image, float64, `[batch]`; features may have any length."""
        if name == "energy":
            values = logits.double().nan_to_num()
            return -(F.softplus(values).sum(dim=1) if self.is_multilabel else values.logsumexp(dim=1))
        matrix, points, rank = self.reference(name)
        unit = unit_length(features)
        return torch.cdist(unit if matrix is None else unit @ matrix, points).kthvalue(rank, dim=1).values

    def reference(self, name: str) -> tuple[Tensor | None, Tensor, int]:
        """Return what the score `mahalanobis` or `neighbors` measures: the distance to the k-th nearest of some points.

        These are a matrix by which features of length 1 are multiplied first, `[width, width]`, or None; the points,
        `[points, width]`; and k. All are float64.
        """
        if name == "neighbors":
            return None, self._unit, max(1, round(NEIGHBOR_SHARE * len(self.features)))
        whiten, means = self._gaussians
        return whiten, means, 1

    def unfamiliar(self, features: Features, logits: Logits) -> NDArray[np.float64]:
        """Return the percentile of each image among the validation images, `[batch]`, in [0, 1].

        Of m validation images, the i-th by score has the percentile i / (m + 1); values between them are interpolated,
        and equal scores share their mean percentile. Thus about 5% of new images like the validation images exceed
        0.95. Rounded to four digits, so that rounding errors that depend on the batch do not show.
        """
        values, percentiles, largest = self.percentiles
        found = self.scores(self.score, features, logits).numpy()
        return np.interp(found, values, percentiles, right=largest).round(4)

    @property
    def percentiles(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """The values of the score in increasing order, their percentiles, and the percentile beyond the last value."""
        values, counts = np.unique(self.known.numpy(), return_counts=True)
        num_known = counts.sum()
        return values, (np.cumsum(counts) - (counts - 1) / 2) / (num_known + 1), num_known / (num_known + 1)

    @cached_property
    def centered(self) -> tuple[Tensor, Tensor]:
        """The features minus the mean of their group, `[n, width]`, and the means, `[groups, width]`; float64."""
        members = F.one_hot(self.groups.unique(return_inverse=True)[1]).double()
        means = members.T @ self._unit / members.sum(dim=0)[:, None]
        return self._unit - members @ means, means

    @cached_property
    def _unit(self) -> Tensor:
        return unit_length(self.features)

    @cached_property
    def _gaussians(self) -> tuple[Tensor, Tensor]:
        """The matrix by which features become uncorrelated with variance 1, and the means multiplied by it."""
        centered, means = self.centered
        covariance = (1 - self.shrinkage) * (centered.T @ centered) / len(centered)
        covariance.diagonal().add_(self.shrinkage * centered.square().mean() + 1e-8)  # features may be constant
        whiten = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
        return whiten, means @ whiten


@torch.inference_mode()
def head_inputs(model: VisionTransformer, batches: Iterable[Images]) -> tuple[Features, Logits]:
    """Return the input of the head, `[n, width]`, and the logits, `[n, classes]`; float32, on the CPU."""
    pairs = [(pooled, model.head(pooled)) for pooled in map(model.eval().pooled, batches)]
    features, logits = (torch.cat([part.float().cpu() for part in parts]) for parts in zip(*pairs, strict=True))
    return features, logits


def unit_length(features: Features) -> Features:
    """Return features scaled to length 1, float64. Values that are not finite become 0."""
    return F.normalize(features.double().nan_to_num(0.0, 0.0, 0.0), dim=1)


def write_familiarity(path: Path, found: Familiarity, model: VisionTransformer) -> None:
    """Write what was found for a model. Raises SaveError if the file could not be written."""
    tensors = {"features": found.features, "groups": found.groups, "known": found.known}
    described = {name: getattr(found, name) for name in ("shrinkage", "score", "is_multilabel")}
    described["weights"] = fingerprint(model)
    write_tensor_file(path, tensors, {"familiarity": json.dumps(described)})


def read_familiarity(path: Path, model: VisionTransformer) -> Familiarity | None:
    """Read what was found for a model; None if there is no such file, as for a copied model or an older version.

    Raises:
        DamagedFileError: The file was altered, or belongs to other weights.
    """
    if not path.is_file():
        return None
    with open_tensor_file(path, way_out=_WAY_OUT) as file, parsing(path, _WAY_OUT):
        tensors, described = file.read_all(), json.loads(file.metadata["familiarity"])
        weights, known = described.pop("weights"), tensors["known"].double()
        found = Familiarity(tensors["features"].half(), tensors["groups"].long(), known=known, **described)
        is_sound = (
            found.features.shape == (*found.groups.shape, model.num_features)
            and bool(found.features.isfinite().all() and known.isfinite().all())
            and 0 < len(found.groups) <= MOST_FAMILIAR["train"]
            and known.ndim == 1
            and len(known) >= LEAST_FAMILIAR
            and found.score in SCORES
            and 0 <= found.shrinkage <= 1
        )
    if not is_sound or weights != fingerprint(model):
        raise DamagedFileError(f"{path}: was altered, or belongs to other weights; {_WAY_OUT}")
    return found
