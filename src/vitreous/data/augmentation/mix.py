"""Images, labels -> mixed images, soft targets: mixup and CutMix."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitreous.tensors import Images, Probabilities, Targets
from vitreous.transfer import to_device


@dataclass(kw_only=True, eq=False)
class Mix:
    """Mixing of each image with a partner from its batch, and of the labels in the same proportions.

    The partner of an image is half a batch away, so that the copies of repeated augmentation, which are adjacent, are
    not mixed with each other. The order of a batch is random, so partners are not drawn. All draws depend on only the
    seed.

    Attributes:
        num_classes: Width of the targets.
        mixup_alpha: An image's share in mixup is drawn from Beta(α, α); 0 for no mixup.
        cutmix_alpha: An image's share in CutMix is drawn from Beta(α, α); 0 for no CutMix. At least one of the two
            alphas must be above 0.
        cutmix_rate: Probability of CutMix instead of mixup, if both are on.
        rate: Probability of mixing at all.
        per_pair: Draw for each image and its partner instead of once for the whole batch.
        until: Progress of the run, in [0, 1], at which mixing ends; the caller must stop mixing then.

    Source:
        mixup: Zhang et al. 2018 (1710.09412), eq. 1 to 2. CutMix: Yun et al. 2019 (1905.04899), eq. 1 to 2 and section
        3.2; the label's share is that of the visible rectangle, after it was cut off at the image's edge. Unlike there,
        partners are not random. Switching between the two follows timm.
    """

    num_classes: int
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    cutmix_rate: float = 0.5
    rate: float = 1.0
    per_pair: bool = False
    until: float = 1.0

    def __post_init__(self) -> None:
        if not (self.mixup_alpha and self.cutmix_alpha):
            self.cutmix_rate = float(self.cutmix_alpha > 0)

    def __call__(self, images: Images, labels: Targets, seed: int) -> tuple[Images, Probabilities]:
        """Mix a batch.

        A batch of one image does not change. The seed comes from `derive`; use another one for each step and attempt.
        Return mixed images, and float32 targets, `[batch, num_classes]`, whose rows sum to one if each image has one
        label.
        """
        weights = self._draw_weights(len(images), (images.shape[-2], images.shape[-1]), seed)
        label_weights = to_device(weights.mean(dim=(2, 3)).float(), images.device)
        weights = to_device(weights.to(images.dtype), images.device)
        onehot = labels if labels.is_floating_point() else F.one_hot(labels, self.num_classes).to(torch.float32)
        # `lerp` is exact for weights 0 and 1, so images that are not mixed come out bit for bit.
        return torch.lerp(_partner(images), images, weights), torch.lerp(_partner(onehot), onehot, label_weights)

    def _draw_weights(self, batch: int, size: tuple[int, int], seed: int) -> Tensor:
        """Draw the weight of each image's own pixels, `[batch or 1, 1, height, width]`.

        It is constant over the image for mixup, and 0 or 1 for CutMix. All numbers are always drawn, so a change of one
        setting does not change the draws of the others.
        """
        draw = np.random.default_rng(seed)
        num = batch if self.per_pair else 1
        is_mixed, is_cutmix = draw.random(num) < self.rate, draw.random(num) < self.cutmix_rate
        center_y, center_x = draw.random((2, num))
        mixup = draw.beta(self.mixup_alpha or 1.0, self.mixup_alpha or 1.0, num)
        cutmix = draw.beta(self.cutmix_alpha or 1.0, self.cutmix_alpha or 1.0, num)
        side = np.sqrt(1 - cutmix)
        rows, columns = _segment(side, center_y, size[0]), _segment(side, center_x, size[1])
        outside = ~(rows[:, :, None] & columns[:, None, :])
        weights = np.where(is_cutmix[:, None, None], outside, mixup[:, None, None])
        return torch.from_numpy(np.where(is_mixed[:, None, None], weights, 1.0))[:, None]


def _partner(values: Tensor) -> Tensor:
    """Return the rows in an order that is shifted by half a batch."""
    return values.roll(-(len(values) // 2), dims=0)


def _segment(share: NDArray[np.float64], center: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """Mark a segment of this share of `side` pixels around a center in [0, 1), cut off at the edge, `[n, side]`."""
    length, middle = (share * side).astype(np.int64), (center * side).astype(np.int64)
    pixel = np.arange(side)
    start = middle - length // 2
    return (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
