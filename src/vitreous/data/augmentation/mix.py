"""Images, labels -> mixed images, soft targets: mixup and CutMix."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitreous.tensors import Images, Labels, Probabilities
from vitreous.transfer import to_device


class Mix:
    """Mix each image with another one of the batch, and its label by the same shares.

    An image's partner stands half a batch further on: a batch has a random order anyway, may have an odd size, and the
    copies of repeated augmentation stand side by side. What is drawn depends on the seed alone.

    Args:
        num_classes: Width of the targets.
        mixup_alpha: Shares of mixup are drawn from Beta(α, α); 0: no mixup.
        cutmix_alpha: As `mixup_alpha`, for CutMix; at least one of the two is above 0.
        cutmix_rate: How often it is CutMix, where both are asked.
        rate: How often anything is mixed.
        per_pair: Draw for each image and its partner; else once for the whole batch.
        until: Progress of the run, in [0, 1], from which on nothing is mixed any more; for the caller to heed.

    Source:
        mixup: Zhang et al. 2018 (1710.09412), eq. 1 to 2. CutMix: Yun et al. 2019 (1905.04899), eq. 1 to 2 and
        section 3.2, the label's share corrected to what the rectangle covers after it was cut at the image's edge.
        Partners are not drawn. Switching between both as in timm.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        cutmix_rate: float = 0.5,
        rate: float = 1.0,
        per_pair: bool = False,
        until: float = 1.0,
    ) -> None:
        self.num_classes = num_classes
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.cutmix_rate = cutmix_rate if mixup_alpha and cutmix_alpha else float(cutmix_alpha > 0)
        self.rate = rate
        self.per_pair = per_pair
        self.until = until

    def __call__(self, images: Images, labels: Labels, seed: int) -> tuple[Images, Probabilities]:
        """Mix a batch.

        Args:
            images: Normalised or not, on any device; one image alone stays as it is.
            labels: Class indices.
            seed: From `derive`, one for each step and attempt.

        Returns:
            Mixed images, and float32 targets `[batch, num_classes]` whose rows sum to one.
        """
        kept = self._kept(len(images), (images.shape[-2], images.shape[-1]), seed)
        share = to_device(kept.mean(dim=(2, 3)).float(), images.device)
        kept = to_device(kept.to(images.dtype), images.device)
        onehot = F.one_hot(labels, self.num_classes).to(torch.float32)
        # `lerp` is exact at both ends: what is not mixed comes out bit for bit.
        return torch.lerp(_partner(images), images, kept), torch.lerp(_partner(onehot), onehot, share)

    def _kept(self, batch: int, size: tuple[int, int], seed: int) -> Tensor:
        """How much of each pixel stays, `[batch or 1, 1, height, width]`: one share for mixup, 0 or 1 for CutMix.

        Every number is drawn always, so that turning one knob leaves what the others draw as it was.
        """
        draw = np.random.default_rng(seed)
        num = batch if self.per_pair else 1
        mixed, cut = draw.random(num) < self.rate, draw.random(num) < self.cutmix_rate
        centre_y, centre_x = draw.random((2, num))
        mixup = draw.beta(self.mixup_alpha or 1.0, self.mixup_alpha or 1.0, num)
        cutmix = draw.beta(self.cutmix_alpha or 1.0, self.cutmix_alpha or 1.0, num)
        side = np.sqrt(1 - cutmix)
        rows, columns = _covered(side, centre_y, size[0]), _covered(side, centre_x, size[1])
        kept = np.where(cut[:, None, None], ~(rows[:, :, None] & columns[:, None, :]), mixup[:, None, None])
        return torch.from_numpy(np.where(mixed[:, None, None], kept, 1.0))[:, None]


def _partner(values: Tensor) -> Tensor:
    """What stands half a batch further on."""
    return values.roll(-(len(values) // 2), dims=0)


def _covered(share: NDArray[np.float64], centre: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """Which of `side` pixels a stretch of this share of them covers, cut off at the edge, `[n, side]`."""
    length, middle = (share * side).astype(np.int64), (centre * side).astype(np.int64)
    pixel = np.arange(side)
    start = middle - length // 2
    return (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
