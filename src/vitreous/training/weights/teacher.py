"""Trained model, RunConfig -> teacher that takes the images of a run and converts them to its own preprocessing."""

from collections.abc import Sequence
from dataclasses import replace
from shlex import quote

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.data.augmentation.operations import grayscale
from vitreous.errors import ConfigError, OpenQuestionError
from vitreous.model.change.reshape import resize_model
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.run_config import RunConfig
from vitreous.tensors import Images
from vitreous.training.weights.pretrained import Pretrained, open_pretrained
from vitreous.training.weights.provenance import statistics_for
from vitreous.wording import show

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and std of each channel, for pixels in [0, 1]."""


class Teacher(nn.Module):
    """A trained model that takes the normalized images of a run, without gradients and in evaluation mode.

    Images are converted to the channels, the size (bicubic, antialiased, without keeping the aspect ratio) and the
    normalization of the model. `run_statistics` are mean and std with which the run normalizes its images;
    `own_statistics` are those of the model, which is frozen in place. With `gives_patches`, the teacher returns a map
    of patch tokens, `[batch, width, rows, columns]`, instead of logits.
    """

    def __init__(
        self,
        model: VisionTransformer,
        *,
        run_statistics: Statistics,
        own_statistics: Statistics,
        gives_patches: bool = False,
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.gives_patches = gives_patches
        names = ("mean", "std", "own_mean", "own_std")
        for name, values in zip(names, (*run_statistics, *own_statistics), strict=True):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(self, images: Images) -> Tensor:
        """Return logits, or a map of patch tokens."""
        images = self.convert(images)
        if self.gives_patches:
            return self.model.forward_intermediates(images, 1, norm=True, intermediates_only=True)[0]
        return self.model(images)

    def convert(self, images: Images) -> Images:
        """Convert images of the run to the preprocessing of the model."""
        pixels = images * self.get_buffer("std") + self.get_buffer("mean")
        channels, size = self.model.config.in_chans, self.model.config.img_size
        if pixels.shape[1] != channels:
            gray = grayscale(pixels)[:, :1] if pixels.shape[1] in (1, 3) else pixels.mean(dim=1, keepdim=True)
            pixels = gray.expand(-1, channels, -1, -1)
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        return (pixels - self.get_buffer("own_mean")) / self.get_buffer("own_std")


def open_teacher(source: str | None, img_size: tuple[int, int] | None = None) -> Pretrained | None:
    """Read the model that `objective.teacher` names; None if there is no teacher.

    `img_size` is height and width of its images in px; None keeps its own.

    Raises:
        NotARunError: The source does not exist.
        DamagedFileError: The file cannot be used.
        ConfigError: The file leaves something of the architecture open, or its patches do not tile this size.
    """
    if source is None:
        return None
    try:
        return resized(open_pretrained(source, {}), img_size)
    except OpenQuestionError as error:
        raise ConfigError(
            f"objective.teacher={source}: its {error.key} is not known; give it to `vitreous convert {quote(source)} "
            f"--to vitreous --architecture.{error.key} VALUE`, and use the result as the teacher"
        ) from error


def resized(teacher: Pretrained, img_size: tuple[int, int] | None) -> Pretrained:
    """Return the teacher for images of another size in px; None keeps it. Raises ConfigError if it is not tiled."""
    config = teacher.model.config
    if img_size is None or img_size == config.img_size:
        return teacher
    side = config.patch_size
    if any(px % side for px in img_size):
        tiled = tuple(max(1, round(px / side)) * side for px in img_size)
        raise ConfigError(
            f"objective.teacher_img_size={show(img_size)}: is not tiled by the patches of {teacher.source}, which have "
            f"{side} px; use {show(tiled)}"
        )
    return replace(teacher, model=resize_model(teacher.model, img_size))


def has_head(teacher: Pretrained, classes: Sequence[str]) -> bool:
    """Return True if the teacher was trained with a head for these classes, in this order.

    A file without class names is believed if it has the same number of classes.
    """
    is_same = all(theirs == ours for theirs, ours in zip(teacher.provenance.classes, classes, strict=False))
    return is_same and teacher.model.num_classes == len(classes)


def with_head(teacher: Pretrained | None, config: RunConfig, classes: Sequence[str]) -> Pretrained | None:
    """Return the teacher with a head of zeros if it has none for these classes; `teach` fits it before the first step.

    If only its patches are used, no head is needed.
    """
    if teacher is not None and config.objective.distill != "feature" and not has_head(teacher, classes):
        head = nn.Linear(teacher.model.config.num_features, len(classes))
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
        teacher.model.head = head
    return teacher


def own_statistics(teacher: Pretrained, config: RunConfig) -> Statistics:
    """Return mean and std for the images of the teacher: its own, or if they are unknown those of the run."""
    (mean, std), provenance, in_chans = _run_statistics(config), teacher.provenance, teacher.model.config.in_chans
    return statistics_for(provenance.mean or mean, in_chans), statistics_for(provenance.std or std, in_chans)


def _run_statistics(config: RunConfig) -> Statistics:
    """Return mean and std of the run; 0 and 1 if they are not measured yet."""
    data = config.data
    return data.mean or (0.0,) * data.in_chans, data.std or (1.0,) * data.in_chans


def build_teacher(teacher: Pretrained | None, config: RunConfig) -> Teacher | None:
    """Build the teacher for `build_task`; None if there is no teacher, or if no step runs it."""
    if teacher is None or not config.objective.runs_teacher:
        return None
    return Teacher(
        teacher.model,
        run_statistics=_run_statistics(config),
        own_statistics=own_statistics(teacher, config),
        gives_patches=config.objective.distill == "feature",
    )
