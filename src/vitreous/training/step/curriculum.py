"""Progress of a run -> what its steps are made of then: how large images are, how many patches stay, what is frozen."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch.nn import functional as F

from vitreous.model.parts.patch_drop import PatchDrop
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.run_config import RunConfig
from vitreous.tensors import Images
from vitreous.training.step.freeze import frozen_parts, set_frozen

NUM_SIZES = 4
"""Sizes of a run whose images grow, the full one included, as in EfficientNetV2: each is worth getting used to."""


@dataclass(frozen=True)
class Stage:
    """What stays the same over a stretch of a run; a step costs the same in all of it.

    Attributes:
        img_size: Height and width of the images, px.
        patch_drop_rate: Share of patches that each image loses.
        is_frozen: Whether what shall be frozen is.
    """

    img_size: tuple[int, int]
    patch_drop_rate: float
    is_frozen: bool


@dataclass(frozen=True)
class Curriculum:
    """All that changes over a run beside the learning rate, as functions of progress alone: nothing to save.

    Attributes:
        config: Of the run.

    Source:
        Images that grow: Tan & Le 2021, section 4 (2104.00298); smaller images are scaled down bilinearly with
        antialiasing, on the device, after augmentation. Patches dropped at first only: Liu et al. 2022 (2208.07220),
        and FLIP's short phase without (2212.00794, section 3). Freezing at first: Kumar et al. 2022 (2202.10054).
    """

    config: RunConfig

    def stage(self, progress: float) -> Stage:
        """What holds for a step that begins at this progress, in [0, 1]."""
        train = self.config.train
        freezes = train.freeze != "none" or train.freeze_blocks > 0
        return Stage(
            img_size=img_size_at(progress, self.config),
            patch_drop_rate=self.config.model.patch_drop_rate if progress < train.patch_drop_until else 0.0,
            is_frozen=freezes and (progress < train.freeze_until or train.freeze_until == 1),
        )

    def stretches(self) -> list[tuple[float, float, Stage]]:
        """(from, to, stage) from the run's beginning to its end, each with another stage than the one before."""
        marks = sorted({0.0, *(mark for mark in self._marks() if mark < 1), 1.0})
        found: list[tuple[float, float, Stage]] = []
        for start, end in pairwise(marks):
            # In the middle, where rounding has no say.
            stage = self.stage((start + end) / 2)
            began = found.pop()[0] if found and found[-1][2] == stage else start
            found.append((began, end, stage))
        return found

    def enter(self, model: VisionTransformer, progress: float) -> None:
        """Bring a model in training mode into the state of this progress."""
        stage, train = self.stage(progress), self.config.train
        if isinstance(model.patch_drop, PatchDrop):
            model.patch_drop.rate = stage.patch_drop_rate
        if train.start_img_size is not None:
            model.tokenizer.img_size = None
        set_frozen(frozen_parts(model, train.freeze, train.freeze_blocks), stage.is_frozen)

    def resized(self, images: Images, progress: float) -> Images:
        """Images in the size of this progress; those that have it are returned as they are."""
        size = self.stage(progress).img_size
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)

    def _marks(self) -> Iterator[float]:
        """Progress at which anything may change."""
        train = self.config.train
        yield train.patch_drop_until
        yield train.freeze_until
        yield from (train.resolution_until * number / (NUM_SIZES - 1) for number in range(1, NUM_SIZES))


def img_size_at(progress: float, config: RunConfig) -> tuple[int, int]:
    """Height and width at this progress: from the first size to the full one in `NUM_SIZES` steps of equal length.

    The full size is reached at `train.resolution_until`; sizes between are the nearest that patches tile.
    """
    start, end, side = config.train.start_img_size, config.model.img_size, config.model.patch_size
    if start is None or progress >= config.train.resolution_until:
        return end
    step = int(progress / config.train.resolution_until * (NUM_SIZES - 1))
    share = step / (NUM_SIZES - 1)
    height, width = (
        side * round((first + share * (last - first)) / side) for first, last in zip(start, end, strict=True)
    )
    return height, width


def is_linear_probe(config: RunConfig) -> bool:
    """Whether the head alone is trained, from the first step to the last."""
    return config.train.freeze == "backbone" and config.train.freeze_until == 1


def probes_fixed_features(config: RunConfig) -> bool:
    """Whether a linear probe sees the same features of an image each time: nothing varies or mixes the images."""
    data = config.data
    varies = data.flip or data.max_shift or data.max_rotate_deg or data.max_scale or data.erase_rate or (
        data.color_jitter or data.min_crop_area < 1 or (data.policy != "none" and data.policy_rate))  # fmt: skip
    mixes = (data.mixup_alpha or data.cutmix_alpha) and data.mix_rate and data.mix_until
    return is_linear_probe(config) and not varies and not mixes and config.train.start_img_size is None
