"""Images, values of their patches -> curves of what happens to the score as relevant parts are removed or inserted.

Each protocol is cited as it was published. A good explanation makes the first curve fall early and the second one late.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Images, Labels, Logits, PerImage, Pixels, Probabilities
from vitreous.training.machine.device import autocast
from vitreous.use.explain.check.orders import Order, in_order, upsampled
from vitreous.use.explain.relevance import PatchValues
from vitreous.use.explain.removal.patch_removal import PatchRemoval

NUM_RISE_STEPS = 28
NUM_PATCH_STEPS = 16
"""Patches are removed in at most this number of steps."""

Chosen = Bool[Tensor, "batch units"]
Curve = Float[Tensor, "batch points"]


class Curves(NamedTuple):
    """Two curves for each image.

    Attributes:
        x: Share of the pixels or patches that were changed, `[points]`, from 0.
        first: Score after the most relevant ones were removed.
        second: Score after the least relevant ones were removed, or after the most relevant ones were inserted.
    """

    x: Float[Tensor, " points"]
    first: Curve
    second: Curve

    @property
    def areas(self) -> tuple[PerImage, PerImage]:
        """Areas under both curves by the trapezoidal rule."""
        x = self.x.double()
        return torch.trapezoid(self.first.double(), x), torch.trapezoid(self.second.double(), x)


@dataclass(frozen=True)
class Subject:
    """A batch of images and the model that classifies them.

    Attributes:
        model: In evaluation mode.
        preprocess: Normalizes pixels.
        pixels: `[batch, channels, height, width]`, from 0 to 255.
        classes: The explained class of each image.
        truth: Which classes each image has, `[batch, classes]`.
        precision: `fp32` or `bf16`, of the forward passes.
        is_multilabel: Images may have several labels, so the probability of a class is its sigmoid.
        seed: Decides the order of parts with equal relevance.
    """

    model: VisionTransformer
    preprocess: Preprocess
    pixels: Pixels
    classes: Labels
    truth: Bool[Tensor, "batch classes"]
    precision: str = "fp32"
    is_multilabel: bool = False
    seed: int = 0

    @property
    def images(self) -> Images:
        """The normalized images."""
        return self.preprocess.normalize(self.pixels)

    @torch.inference_mode()
    def logits(self, images: Images) -> Logits:
        """Return the logits of changed images."""
        with autocast(images.device, self.precision):
            return self.model(images).float()

    def probabilities(self, logits: Logits) -> PerImage:
        """Return the probability of the explained class of each image, without temperature."""
        every: Probabilities = logits.sigmoid() if self.is_multilabel else logits.softmax(dim=1)
        return self.of_class(every)

    def of_class(self, values: Float[Tensor, "batch classes"]) -> PerImage:
        """Return the value of the explained class of each image."""
        return values.gather(1, self.classes[:, None])[:, 0]

    def as_mask(self, chosen: Chosen) -> Bool[Tensor, "batch 1 height width"]:
        """Return which pixels are chosen, as a mask for all channels."""
        return rearrange(chosen, "b (h w) -> b 1 h w", h=self.pixels.shape[2])


def perturbation(subject: Subject, maps: PatchValues) -> Curves:
    """Turn pixels black, 10% at a time, and count correct images.

    Source:
        Chefer et al. 2021, Transformer Interpretability Beyond Attention Visualization (2012.09838), and the
        authors' code. Pixels, not patches, are ranked by the map, which is enlarged bilinearly. Removed pixels are 0
        before normalization. An image counts as correct if its top class is the true one, whichever class was
        explained. The area is the trapezoid over 0, 10, …, 90% in percentage points, so it is at most 90; the authors
        give this rule in their discussions, not in the code. First is their positive test, second the negative one.
    """
    order = in_order(upsampled(maps, subject.preprocess.img_size), subject.seed)
    counts = [order.shape[1] * tenths // 10 for tenths in range(10)]

    def is_right(removed: Chosen) -> PerImage:
        logits = subject.logits(subject.preprocess.normalize(subject.pixels.masked_fill(subject.as_mask(removed), 0)))
        return subject.truth.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0].float()

    return _from_both_ends(order, counts, is_right)._replace(x=torch.arange(10) / 10)


def deletion_and_insertion(subject: Subject, maps: PatchValues) -> Curves:
    """Delete the most relevant pixels, and insert them into a blurred image; follow the probability of the class.

    Source:
        Petsiuk et al. 2018, RISE (1806.07421), and the authors' code. Deleted pixels are 0 after
        normalization. The blur is their kernel of 11 px with a standard deviation of 5 px, also for images smaller than
        theirs, with zeros beyond the border. There are 28 steps, which is 8 rows of pixels a step at 224 px. The
        probability is the softmax of the explained class, without temperature.
    """
    images, blurred = subject.images, blur(subject.images)
    order = in_order(upsampled(maps, subject.preprocess.img_size), subject.seed)
    counts = _steps(order.shape[1], NUM_RISE_STEPS)

    def deleted(chosen: Chosen) -> PerImage:
        return subject.probabilities(subject.logits(images.masked_fill(subject.as_mask(chosen), 0)))

    def inserted(chosen: Chosen) -> PerImage:
        return subject.probabilities(subject.logits(torch.where(subject.as_mask(chosen), images, blurred)))

    return Curves(_shares(order, counts), _curve(order, counts, deleted), _curve(order, counts, inserted))


def flipping(subject: Subject, maps: PatchValues) -> Curves:
    """Set the embeddings of patches to zero, most and least relevant first; follow the logit of the class.

    Source:
        Achtibat et al. 2024, AttnLRP (2402.05602). The embedding of a patch is
        zero before its position is added. The area between the curves, least minus most relevant first, is the score.
        There are at most 16 steps, and the logit is that of the explained class.
    """

    def score(chosen: Chosen) -> PerImage:
        with _zero_embeddings(subject.model, chosen):
            return subject.of_class(subject.logits(images))

    images, order = subject.images, in_order(maps.flatten(1), subject.seed)
    return _from_both_ends(order, _steps(order.shape[1], NUM_PATCH_STEPS), score)


def removal(subject: Subject, maps: PatchValues) -> Curves:
    """Remove patches, most and least relevant first, as if they did not exist; follow the logit of the class.

    Nothing is painted over a patch, so no step shows the model anything that is not in the image. The logit is
    followed, as it is what methods explain; the probability hardly changes for images that are classified with
    certainty. Steps and area are those of `flipping`.
    """
    remover = PatchRemoval(subject.model, subject.images, subject.precision)
    numbers = torch.arange(len(maps), device=maps.device)

    def score(chosen: Chosen) -> PerImage:
        return subject.of_class(remover.logits(numbers, ~chosen).to(chosen.device))

    order = in_order(maps.flatten(1), subject.seed)
    return _from_both_ends(order, _steps(order.shape[1], NUM_PATCH_STEPS), score)


@dataclass(frozen=True)
class Protocol:
    """A way to score explanations.

    Attributes:
        run: Computes the curves from (subject, maps).
        title: What is done, for figures.
        curves: What the two curves show.
        units: What is changed.
        measures: Names of the areas of the two curves; or one name, of the second area minus the first one.
        follows: What the curves show.
        scale: Factor of the areas.
    """

    run: Callable[[Subject, PatchValues], Curves]
    title: str
    curves: tuple[str, str]
    units: str
    follows: str
    measures: tuple[str, ...]
    scale: float = 1.0

    def scores(self, curves: Curves) -> dict[str, PerImage]:
        """Return the score of each image by each measure."""
        first, second = (self.scale * area for area in curves.areas)
        return dict(zip(self.measures, (first, second) if len(self.measures) == 2 else (second - first,), strict=True))


_BOTH_ENDS = ("most relevant first (lower is better)", "least relevant first (higher is better)")
PROTOCOLS: Mapping[str, Protocol] = {
    "perturbation": Protocol(
        run=perturbation,
        title="pixels turned black",
        curves=_BOTH_ENDS,
        units="pixels",
        follows="top-1 accuracy",
        measures=("positive", "negative"),
        scale=100.0,
    ),
    "rise": Protocol(
        run=deletion_and_insertion,
        title="pixels deleted and inserted",
        curves=("deletion (lower is better)", "insertion (higher is better)"),
        units="pixels",
        follows="probability",
        measures=("deletion", "insertion"),
    ),
    "flipping": Protocol(flipping, "embeddings set to zero", _BOTH_ENDS, "patches", "logit", ("flipping",)),
    "removal": Protocol(removal, "tokens removed", _BOTH_ENDS, "patches", "logit", ("removal",)),
}
LOWER_IS_BETTER = frozenset({"positive", "deletion"})
"""Measures that are better if they are lower; of all others, higher is better."""


def blur(images: Images) -> Images:
    """Return the images blurred as RISE does."""
    from scipy.ndimage import gaussian_filter

    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1.0
    kernel = torch.from_numpy(gaussian_filter(impulse, 5.0)).to(images)
    channels = images.shape[1]
    return F.conv2d(images, kernel.expand(channels, 1, 11, 11), padding=5, groups=channels)


def _from_both_ends(order: Order, counts: Sequence[int], score: Callable[[Chosen], PerImage]) -> Curves:
    return Curves(_shares(order, counts), _curve(order, counts, score), _curve(order.flip(1), counts, score))


def _curve(order: Order, counts: Sequence[int], score: Callable[[Chosen], PerImage]) -> Curve:
    """Return the score once the first units of the order are chosen, for each number of them."""
    ranks = order.argsort(dim=1)
    return torch.stack([score(ranks < count) for count in counts], dim=1).cpu()


def _steps(total: int, most: int) -> list[int]:
    """Return numbers from 0 to `total` in nearly equal steps."""
    return [round(total * step / min(total, most)) for step in range(min(total, most) + 1)]


def _shares(order: Order, counts: Sequence[int]) -> Float[Tensor, " points"]:
    return torch.tensor(counts) / order.shape[1]


@contextmanager
def _zero_embeddings(model: VisionTransformer, chosen: Chosen) -> Iterator[None]:
    """Set the embeddings of the chosen patches to zero in every forward pass inside this context."""

    def zero(_module: Any, _inputs: Any, embeddings: Tensor) -> Tensor:
        return embeddings.masked_fill(chosen[..., None], 0)

    handle = model.patch_norm.register_forward_hook(zero)
    try:
        yield
    finally:
        handle.remove()
