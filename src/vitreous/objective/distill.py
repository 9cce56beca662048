"""Model, teacher, images, targets -> loss: learn from labels, and from what a teacher makes of the same images.

The teacher is any module that takes the student's images, mixed perhaps, and gives what each task says.
"""

from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.objective.task import Criterion, Task, divided, precise
from vitreous.tensors import Images, Labels, Logits, Loss, PerImage, Probabilities, Tokens


class Distilled(Task, ABC):
    """(1 − w) · what the labels ask + w · what the teacher asks, both as means over images by what each weighs.

    Args:
        criterion: Compares logits with labels.
        teacher: Never learns: it runs without gradients and stays in evaluation mode.
        weight: w, in (0, 1].
    """

    def __init__(self, criterion: Criterion, teacher: nn.Module, *, weight: float) -> None:
        super().__init__()
        self.criterion = criterion
        self.teacher = teacher.requires_grad_(False).eval()
        self.weight = weight

    def train(self, mode: bool = True) -> "Distilled":
        """As any module's, but for the teacher."""
        super().train(mode)
        self.teacher.eval()
        return self

    def total(self, targets: Labels | Probabilities) -> Tensor:
        """The criterion's."""
        return self.criterion.total(targets)

    @torch.no_grad()
    def taught(self, images: Images) -> Tensor:
        """What the teacher makes of the images."""
        return self.teacher(images)

    def both(self, of_labels: Loss, of_teacher: PerImage, targets: Labels | Probabilities, total: Tensor) -> Loss:
        """The loss of a batch, or its part in that of a larger one.

        Args:
            of_labels: The criterion's.
            of_teacher: Each image's distance from the teacher.
            targets: They say what each image weighs.
            total: What both are divided by.
        """
        weighed = divided((self.criterion.image_weights(targets) * of_teacher).sum(), total)
        return (1 - self.weight) * of_labels + self.weight * weighed


class LogitDistillation(Distilled):
    """The student's logits follow the teacher's: `[batch, classes]`, the same classes.

    Args:
        criterion: As in `Distilled`.
        teacher: Gives logits.
        weight: As in `Distilled`.
        hard: Learn the class that the teacher calls, instead of all its probabilities.
        token: The student has a head of its own for what the teacher says, on its distillation token, and its class
            token's head learns the labels; else the same logits learn both.
        temperature: By which both logits are divided, unless `hard`.

    Source:
        Hinton et al. 2015, section 2 (1503.02531). Touvron et al. 2021, eq. 2 and 3 (2012.12877), whose code divides
        the soft loss by the number of classes too: their w = 0.1 is a weaker wish than ours.
    """

    def __init__(
        self,
        criterion: Criterion,
        teacher: nn.Module,
        *,
        weight: float,
        hard: bool = False,
        token: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(criterion, teacher, weight=weight)
        self.hard = hard
        self.token = token
        self.temperature = temperature

    def forward(
        self, model: nn.Module, images: Images, targets: Labels | Probabilities, total: Tensor | None = None
    ) -> tuple[Loss, Logits]:
        """One forward pass of each."""
        total = self.total(targets) if total is None else total
        taught = self.taught(images)
        if self.token:
            with watched(model, "head.label") as labels, watched(model, "head.teacher") as teachers:
                logits = model(images)
            for_labels, for_teacher = labels[0], teachers[0]
        else:
            for_labels = for_teacher = logits = model(images)
        distances = hard_distance(for_teacher, taught) if self.hard else soft_distance(
            for_teacher, taught, self.temperature)  # fmt: skip
        loss = self.both(self.criterion(for_labels, targets, total), distances, targets, total)
        # The mean of both heads counts nothing; but a sharded model fetches its weights for a backward through what it
        # returned, and has to do so before the heads'.
        return loss + 0 * logits.sum(), logits


class FeatureDistillation(Distilled):
    """The student's patches resemble one another as the teacher's do: nothing is learned in between, widths may differ.

    Args:
        criterion: As in `Distilled`.
        teacher: Gives patches as a map, `[batch, width, rows, columns]`; brought to the student's rows and columns.
        weight: As in `Distilled`.

    Source:
        Tung & Mori 2019, eq. 2 to 4 (1907.09682) compare the images of a batch with one another. We compare the patches
        of an image, as the Gram loss of Siméoni et al. 2025, eq. 2 (2508.10104): so an image's loss does not depend on
        what it shares a batch with, or a part of one. Mean over pairs, where they sum.
    """

    def forward(
        self, model: nn.Module, images: Images, targets: Labels | Probabilities, total: Tensor | None = None
    ) -> tuple[Loss, Logits]:
        """One forward pass of each."""
        total = self.total(targets) if total is None else total
        taught = self.taught(images)
        with watched(model, "encoder") as seen:
            logits = model(images)
        rows, columns = cast(Gridded, model.get_submodule("tokenizer")).grid_size(images)
        if taught.shape[-2:] != (rows, columns):
            taught = F.interpolate(taught.float(), (rows, columns), mode="bicubic", antialias=True)
        patches = seen[0][:, -rows * columns :]
        distances = gram_distance(patches, rearrange(taught, "b d h w -> b (h w) d"))
        return self.both(self.criterion(logits, targets, total), distances, targets, total), logits


class Gridded(Protocol):
    """A tokenizer that knows how many patches an image gives, down and across."""

    def grid_size(self, images: Images) -> tuple[int, int]:
        """Rows and columns."""


def soft_distance(logits: Logits, taught: Logits, temperature: float) -> PerImage:
    """T² · KL(softmax(taught / T) ‖ softmax(logits / T)); T² keeps gradients alike whatever the temperature."""
    student, teacher = ((precise(x) / temperature).log_softmax(dim=1) for x in (logits, taught))
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(dim=1)


def hard_distance(logits: Logits, taught: Logits) -> PerImage:
    """Cross-entropy with the class that the teacher calls."""
    return F.cross_entropy(precise(logits), taught.argmax(dim=1), reduction="none")


def gram_distance(patches: Tokens, taught: Tokens) -> PerImage:
    """Mean squared difference, over all pairs of patches of an image, of their cosine in student and teacher.

    Args:
        patches: `[batch, patches, width]`.
        taught: The same patches, of any width.
    """
    student, teacher = (F.normalize(precise(x), dim=-1) for x in (patches, taught))
    with torch.autocast(patches.device.type, enabled=False):  # a difference of cosines needs its digits
        return (student @ student.mT - teacher @ teacher.mT).square().mean(dim=(1, 2))


@contextmanager
def watched(model: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """What a part of a model gives, each time that it runs; gradients flow through it.

    Reading while the model runs, instead of calling its parts, leaves a wrapped or distributed one to run as it must:
    outside of its forward, its weights may not even be there.

    Args:
        model: Any with such a part.
        name: Of the part.
    """
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _, __, given: seen.append(given))
    try:
        yield seen
    finally:
        handle.remove()
