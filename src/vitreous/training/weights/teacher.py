"""Trained model, RunConfig -> teacher that takes the images of a run and converts them to its own preprocessing."""

from collections.abc import Sequence
from shlex import quote

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.data.augmentation.operations import grayscale
from vitreous.errors import ConfigError, OpenQuestionError
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.run_config import RunConfig
from vitreous.tensors import Images
from vitreous.training.weights.pretrained import Pretrained, fingerprint, open_pretrained
from vitreous.training.weights.provenance import statistics_for
from vitreous.wording import plural

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and std of each channel, for pixels in [0, 1]."""


class Teacher(nn.Module):
    """A trained model that takes the normalized images of a run, without gradients and in evaluation mode.

    Images are converted to the channels, the size (bicubic, antialiased, without keeping the aspect ratio) and the
    normalization of the model.

    Args:
        model: The trained model; it is frozen in place.
        run_statistics: Mean and std with which the run normalizes its images.
        own_statistics: Mean and std with which the model was trained.
        gives_patches: Return a map of patch tokens, `[batch, width, rows, columns]`, instead of logits.
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
        for name, values in zip(
            ("mean", "std", "own_mean", "own_std"), (*run_statistics, *own_statistics), strict=True
        ):
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


def open_teacher(source: str | None) -> Pretrained | None:
    """Read the model that `objective.teacher` names; None if there is no teacher.

    Raises:
        NotARunError: The source does not exist.
        DamagedFileError: The file cannot be used.
        ConfigError: The file leaves something of the architecture open.
    """
    if source is None:
        return None
    try:
        return open_pretrained(source, {})
    except OpenQuestionError as error:
        raise ConfigError(
            f"objective.teacher={source}: its {error.key} is not known; give it to `vitreous convert {quote(source)} "
            f"--to vitreous --architecture.{error.key} VALUE`, and use the result as the teacher"
        ) from error


def check_teacher(teacher: Pretrained | None, config: RunConfig, classes: Sequence[str]) -> None:
    """Raise ConfigError if the teacher has other classes than the run, unless only its features are used.

    Args:
        teacher: The teacher; None passes.
        config: The configuration of the run; `objective.distill` says what is learned from the teacher.
        classes: Class names of the run, in the order of its logits.
    """
    if teacher is None or config.objective.distill == "feature":
        return
    known, num_known = teacher.provenance.classes, teacher.model.num_classes
    way_out = "use a teacher with the same classes, or set objective.distill=feature, which does not compare classes"
    if num_known != len(classes):
        raise ConfigError(
            f"objective.teacher={teacher.source}: has {plural(num_known, 'class', 'classes')}, but the data has "
            f"{len(classes)}; {way_out}"
        )
    pairs = enumerate(zip(known, classes, strict=False))
    different = next(((number, theirs, ours) for number, (theirs, ours) in pairs if theirs != ours), None)
    if different is not None:
        number, theirs, ours = different
        raise ConfigError(
            f"objective.teacher={teacher.source}: its class {number} is {theirs!r}, but in the data it is {ours!r}; "
            f"{way_out}"
        )


def build_teacher(teacher: Pretrained | None, config: RunConfig) -> Teacher | None:
    """Build the teacher for `build_task`; None if there is no teacher.

    Args:
        teacher: The opened and checked teacher.
        config: The configuration of the run. If mean and std are not measured yet, they count as 0 and 1.
    """
    if teacher is None:
        return None
    data, provenance, in_chans = config.data, teacher.provenance, teacher.model.config.in_chans
    mean, std = data.mean or (0.0,) * data.in_chans, data.std or (1.0,) * data.in_chans
    own_mean = statistics_for(provenance.mean or mean, in_chans)
    own_std = statistics_for(provenance.std or std, in_chans)
    return Teacher(
        teacher.model,
        run_statistics=(mean, std),
        own_statistics=(own_mean, own_std),
        gives_patches=config.objective.distill == "feature",
    )


def teacher_fingerprint(teacher: Pretrained | None) -> str:
    """Return a hash of the weights of the teacher; empty if there is no teacher."""
    return "" if teacher is None else fingerprint(teacher.model)
