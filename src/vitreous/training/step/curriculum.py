"""Progress of a run -> what changes during it besides the learning rate: image size, patch dropping, frozen layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch.nn import functional as F

from vitreous.model.parts.patch_drop import PatchDrop
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.run_config import RunConfig
from vitreous.tensors import Images
from vitreous.training.step.freeze import modules_to_freeze, set_frozen

NUM_SIZES = 4
"""Number of image sizes in a run with growing images, including the full size, as in EfficientNetV2."""


@dataclass(frozen=True)
class Stage:
    """Settings that are constant over a stretch of a run; all steps of a stage have the same cost.

    Attributes:
        img_size: Height and width of the images, px.
        patch_drop_rate: Share of the patches that is dropped from each image, in [0, 1).
        is_frozen: True while the layers that `train.freeze*` selects are frozen.
    """

    img_size: tuple[int, int]
    patch_drop_rate: float
    is_frozen: bool


@dataclass(frozen=True)
class Curriculum:
    """Everything that changes during a run besides the learning rate.

    All methods are functions of progress, so there is no state to save.

    Source:
        Growing images: Tan & Le 2021, section 4 (2104.00298). Here smaller images are scaled down on the device after
        augmentation, bilinearly with antialiasing. Dropping patches only at first: Liu et al. 2022 (2208.07220), and
        the short final phase without dropping of FLIP (2212.00794, section 3). Freezing at first: Kumar et al. 2022
        (2202.10054).
    """

    config: RunConfig

    def stage(self, progress: float) -> Stage:
        """Return the settings of a step that begins at this progress, in [0, 1]."""
        train = self.config.train
        freezes = train.freeze != "none" or train.freeze_blocks > 0
        return Stage(
            img_size=img_size_at(progress, self.config),
            patch_drop_rate=self.config.model.patch_drop_rate if progress < train.patch_drop_until else 0.0,
            is_frozen=freezes and (progress < train.freeze_until or train.freeze_until == 1),
        )

    def stretches(self) -> list[tuple[float, float, Stage]]:
        """Return (start, end, stage) for each stretch of progress from 0 to 1; neighboring stages differ."""
        marks = sorted({0.0, *(mark for mark in self._marks() if mark < 1), 1.0})
        stretches: list[tuple[float, float, Stage]] = []
        for start, end in pairwise(marks):
            # The middle is safe from rounding errors at the ends.
            stage = self.stage((start + end) / 2)
            is_same = bool(stretches) and stretches[-1][2] == stage
            stretches.append((stretches.pop()[0] if is_same else start, end, stage))
        return stretches

    def enter(self, model: VisionTransformer, progress: float) -> None:
        """Apply the settings of this progress to a model in training mode."""
        stage, train = self.stage(progress), self.config.train
        if isinstance(model.patch_drop, PatchDrop):
            model.patch_drop.rate = stage.patch_drop_rate
        if train.start_img_size is not None:
            model.tokenizer.img_size = None
        set_frozen(modules_to_freeze(model, train.freeze, train.freeze_blocks), stage.is_frozen)

    def resized(self, images: Images, progress: float) -> Images:
        """Return the images in the size of this progress; the same tensor if they already have it."""
        size = self.stage(progress).img_size
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)

    def _marks(self) -> Iterator[float]:
        """Yield each progress at which a setting may change."""
        train = self.config.train
        yield train.patch_drop_until
        yield train.freeze_until
        yield from (train.resolution_until * number / (NUM_SIZES - 1) for number in range(1, NUM_SIZES))


def img_size_at(progress: float, config: RunConfig) -> tuple[int, int]:
    """Return height and width at this progress, px.

    Images grow from `train.start_img_size` to the full size in `NUM_SIZES` sizes, and have the full size from
    `train.resolution_until` on. Sizes in between are rounded to multiples of the patch size.
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
    """Return True if only the head is trained during the whole run."""
    return config.train.freeze == "backbone" and config.train.freeze_until == 1


def probes_fixed_features(config: RunConfig) -> bool:
    """Return True for a linear probe whose features never change, because images are neither augmented nor mixed."""
    return is_linear_probe(config) and not config.why_inputs_change()
