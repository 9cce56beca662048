"""Model, teacher, images, targets -> loss: learn from labels and from a teacher's outputs for the same images.

A teacher is any module that takes the student's images, mixed or not, and returns what the task expects.
"""

from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.objective.task import Criterion, LabeledTask, at_least_float32, divide
from vitreous.tensors import Images, Labels, Logits, Loss, PerImage, Probabilities, Tokens


class Distillation(LabeledTask, ABC):
    """Distillation with the loss (1 − w) · loss of the labels + w · distance from the teacher.

    The teacher is frozen, runs without gradients and stays in evaluation mode. Its weight w is in (0, 1].
    """

    def __init__(self, criterion: Criterion, teacher: nn.Module, *, weight: float) -> None:
        super().__init__(criterion)
        self.teacher = teacher.requires_grad_(False).eval()
        self.weight = weight

    def train(self, mode: bool = True) -> "Distillation":
        """Set the training mode of everything except the teacher."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def teacher_output(self, images: Images) -> Tensor:
        """Run the teacher without gradients."""
        return self.teacher(images)

    def combine(self, label_loss: Loss, distances: PerImage, targets: Labels | Probabilities, total: Tensor) -> Loss:
        """Return the weighted sum of the loss of the labels and the mean distance from the teacher.

        Distances are `[batch]`; `total` is the sum of the image weights, by which they are divided.
        """
        distance = divide((self.criterion.image_weights(targets) * distances).sum(), total)
        return (1 - self.weight) * label_loss + self.weight * distance


class LogitDistillation(Distillation):
    """Distillation of the teacher's logits, `[batch, classes]`, which must have the student's classes.

    The weight of the teacher is in (0, 1]. With `hard`, the student learns the class that the teacher predicts, instead
    of all its probabilities; otherwise the logits of both are divided by `temperature`. With `token`, the head of the
    distillation token learns from the teacher, and that of the class token from the labels; otherwise the same logits
    learn from both.

    Source:
        Hinton et al. 2015, section 2 (1503.02531). Touvron et al. 2021, eq. 2 and 3 (2012.12877), whose code also
        divides the soft loss by the number of classes, so their w = 0.1 gives the teacher less weight than ours.
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
        """Run teacher and student once each. Arguments are those of `Task.forward`."""
        total = self.total(targets) if total is None else total
        expected = self.teacher_output(images)
        if self.token:
            with outputs_of(model, "head.label") as label_outputs, outputs_of(model, "head.teacher") as teacher_outputs:
                logits = model(images)
            for_labels, for_teacher = label_outputs[0], teacher_outputs[0]
        else:
            for_labels = for_teacher = logits = model(images)
        if self.hard:
            distances = F.cross_entropy(at_least_float32(for_teacher), expected.argmax(dim=1), reduction="none")
        else:
            distances = soft_distance(for_teacher, expected, self.temperature)
        loss = self.combine(self.criterion(for_labels, targets, total), distances, targets, total)
        # The logits, the mean of both heads, are not part of the loss. But a sharded model gathers its weights when the
        # backward pass reaches the output of the model, which must happen before it reaches the outputs of the heads.
        return loss + 0 * logits.sum(), logits


class FeatureDistillation(Distillation):
    """Distillation of how similar the patches of an image are to one another; feature widths may differ.

    The teacher maps images to patch features, `[batch, width, rows, columns]`, which are resized to the rows and
    columns of the student. Its weight is in (0, 1].

    Source:
        Tung & Mori 2019, eq. 2 to 4 (1907.09682), who compare the images of a batch with one another. We compare the
        patches of one image, like the Gram loss of Siméoni et al. 2025, eq. 2 (2508.10104), so that the loss of an
        image does not depend on the other images of its batch. We take the mean over pairs where they take the sum.
    """

    def forward(
        self, model: nn.Module, images: Images, targets: Labels | Probabilities, total: Tensor | None = None
    ) -> tuple[Loss, Logits]:
        """Run teacher and student once each. Arguments are those of `Task.forward`."""
        total = self.total(targets) if total is None else total
        expected = self.teacher_output(images)
        with outputs_of(model, "encoder") as tokens:
            logits = model(images)
        tokenizer: Any = model.get_submodule("tokenizer")
        rows, columns = tokenizer.grid_size(images)
        if expected.shape[-2:] != (rows, columns):
            expected = F.interpolate(expected.float(), (rows, columns), mode="bicubic", antialias=True)
        patches = tokens[0][:, -rows * columns :]
        distances = gram_distance(patches, rearrange(expected, "b d h w -> b (h w) d"))
        return self.combine(self.criterion(logits, targets, total), distances, targets, total), logits


def soft_distance(logits: Logits, expected: Logits, temperature: float) -> PerImage:
    """Return T² · KL(softmax(expected / T) ‖ softmax(logits / T)) of each image.

    The factor T² makes the size of the gradients independent of the temperature.
    """
    student, teacher = ((at_least_float32(x) / temperature).log_softmax(dim=1) for x in (logits, expected))
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(dim=1)


def gram_distance(patches: Tokens, expected: Tokens) -> PerImage:
    """Return the mean squared difference between the cosine similarities of student and teacher, over pairs of patches.

    The features are those of the same patches, `[batch, patches, width]`; student and teacher may differ in width.
    """
    student, teacher = (F.normalize(at_least_float32(x), dim=-1) for x in (patches, expected))
    with torch.autocast(patches.device.type, enabled=False):  # Differences of cosines need full precision.
        return (student @ student.mT - teacher @ teacher.mT).square().mean(dim=(1, 2))


@contextmanager
def outputs_of(model: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """Collect the outputs of a submodule while the model runs; gradients flow through them.

    Calling submodules directly would not work for a wrapped or distributed model, whose weights may only be present
    during its own forward pass.
    """
    outputs: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()
