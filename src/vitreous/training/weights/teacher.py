"""A trained model, RunConfig -> the teacher of a run: it sees the run's images, mixed perhaps, as it wants them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.data.augmentation.operations import grayscale
from vitreous.errors import ConfigError
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.run_config import RunConfig
from vitreous.tensors import Images
from vitreous.training.weights.pretrained import Pretrained, fingerprint, open_pretrained

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and std of each channel, of pixels in [0, 1]."""


class Teacher(nn.Module):
    """Normalised images of a run -> what a trained model says of them, without gradients and in evaluation mode.

    They are brought to the model's channels, size (bicubic, antialiased; the aspect ratio is not kept) and
    normalisation.

    Args:
        model: Becomes the teacher's own.
        seen: How the run normalises its images.
        wanted: How the model was trained to see them.
        gives_patches: Say a map of patches, `[batch, width, rows, columns]`, instead of logits.
    """

    def __init__(
        self, model: VisionTransformer, *, seen: Statistics, wanted: Statistics, gives_patches: bool = False
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.gives_patches = gives_patches
        for name, values in zip(("mean", "std", "own_mean", "own_std"), (*seen, *wanted), strict=True):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(self, images: Images) -> Tensor:
        """Logits, or a map of patches."""
        images = self.as_wanted(images)
        if self.gives_patches:
            return self.model.forward_intermediates(images, 1, norm=True, intermediates_only=True)[0]
        return self.model(images)

    def as_wanted(self, images: Images) -> Images:
        """The same images as the model was trained to see them."""
        pixels = images * self.get_buffer("std") + self.get_buffer("mean")
        channels, size = self.model.config.in_chans, self.model.config.img_size
        if pixels.shape[1] != channels:
            gray = grayscale(pixels)[:, :1]
            pixels = gray.expand(-1, channels, -1, -1)
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        return (pixels - self.get_buffer("own_mean")) / self.get_buffer("own_std")


def open_teacher(source: str | None) -> Pretrained | None:
    """The model that `objective.teacher` names; None where there is none. Raises as `open_pretrained`."""
    return None if source is None else open_pretrained(source, {})


def check_teacher(teacher: Pretrained | None, config: RunConfig, classes: Sequence[str]) -> None:
    """Raise ConfigError where the teacher knows other classes than the run's, unless it is asked for none.

    Args:
        teacher: Opened.
        config: Says what is learned from it.
        classes: The run's, in the order of its logits.
    """
    if teacher is None or config.objective.distill == "feature":
        return
    known, num_known = teacher.provenance.classes, teacher.model.num_classes
    way_out = "give one of the same classes, or set objective.distill=feature, which compares none"
    if num_known != len(classes):
        raise ConfigError(
            f"objective.teacher={teacher.source}: knows {num_known} classes, the data has {len(classes)}; {way_out}"
        )
    pairs = enumerate(zip(known, classes, strict=False))
    different = next(((number, theirs, ours) for number, (theirs, ours) in pairs if theirs != ours), None)
    if different is not None:
        number, theirs, ours = different
        raise ConfigError(
            f"objective.teacher={teacher.source}: calls its class {number} {theirs!r}, the data calls it {ours!r}; "
            f"{way_out}"
        )


def build_teacher(teacher: Pretrained | None, config: RunConfig) -> Teacher | None:
    """The teacher as `build_task` takes it; None where there is none.

    Args:
        teacher: Opened, and checked.
        config: Of the run; where its mean and std are not measured yet, they are taken to be 0 and 1.
    """
    if teacher is None:
        return None
    data, provenance, in_chans = config.data, teacher.provenance, teacher.model.config.in_chans
    seen = (data.mean or (0.0,) * data.in_chans, data.std or (1.0,) * data.in_chans)
    wanted = (provenance.mean or seen[0], provenance.std or seen[1])
    return Teacher(
        teacher.model,
        seen=seen,
        wanted=(_for_channels(wanted[0], in_chans), _for_channels(wanted[1], in_chans)),
        gives_patches=config.objective.distill == "feature",
    )


def teacher_fingerprint(teacher: Pretrained | None) -> str:
    """Of its weights, whatever file they are in; empty where there is none."""
    return "" if teacher is None else fingerprint(teacher.model)


def _for_channels(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    """The same for every channel where their number is another: their mean."""
    return values if len(values) == in_chans else (sum(values) / len(values),) * in_chans
