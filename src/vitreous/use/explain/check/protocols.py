"""Images, values of their patches -> curves of what happens to the score as relevant parts are removed or inserted.

Each protocol is cited as it was published. A good explanation makes the first curve fall early and the second one late.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Images, Labels, Logits, PerImage, Pixels
from vitreous.training.machine.device import autocast
from vitreous.use.explain.check.orders import in_order, upsampled
from vitreous.use.explain.relevance import PatchValues
from vitreous.use.explain.removal.patch_removal import PatchRemoval

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


@dataclass(frozen=True, eq=False)
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
    _ends: dict[tuple["Change", int], Logits] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def images(self) -> Images:
        """The normalized images."""
        return self.preprocess.normalize(self.pixels)

    @cached_property
    def blurred(self) -> Images:
        """The normalized images, blurred."""
        return blur(self.images)

    @cached_property
    def remover(self) -> PatchRemoval:
        """Removes patches of the images."""
        return PatchRemoval(self.model, self.images, self.precision)

    @torch.inference_mode()
    def logits(self, images: Images) -> Logits:
        """Return the logits of changed images."""
        with autocast(images.device, self.precision):
            return self.model(images).float()

    def after(self, change: "Change", chosen: Chosen, count: int) -> Logits:
        """Return the logits after a change of `count` units; without any and with all, they are computed once."""
        if 0 < count < chosen.shape[1]:
            return change(self, chosen)
        if (change, count) not in self._ends:
            self._ends[change, count] = change(self, chosen)
        return self._ends[change, count]

    def mask(self, chosen: Chosen) -> Bool[Tensor, "batch 1 height width"]:
        """Return which pixels are chosen, for all channels."""
        return rearrange(chosen, "b (h w) -> b 1 h w", h=self.pixels.shape[2])


Change = Callable[[Subject, Chosen], Logits]


def black(subject: Subject, chosen: Chosen) -> Logits:
    """Turn pixels black.

    Source:
        Chefer et al. 2021, Transformer Interpretability Beyond Attention Visualization (2012.09838), and the
        authors' code. Pixels, not patches, are ranked by the map, which is enlarged bilinearly. Removed pixels are 0
        before normalization. An image counts as correct if its top class is the true one, whichever class was
        explained. The area is the trapezoid over 0, 10, …, 90% in percentage points, so it is at most 90; the authors
        give this rule in their discussions, not in the code. First is their positive test, second the negative one.
    """
    return subject.logits(subject.preprocess.normalize(subject.pixels.masked_fill(subject.mask(chosen), 0)))


def deleted(subject: Subject, chosen: Chosen) -> Logits:
    """Delete pixels: they are 0 after normalization.

    Source:
        Petsiuk et al. 2018, RISE (1806.07421), and the authors' code. A step is 8 rows of pixels at 224 px, if there
        are 28. The probability is the softmax of the explained class, without temperature.
    """
    return subject.logits(subject.images.masked_fill(subject.mask(chosen), 0))


def inserted(subject: Subject, chosen: Chosen) -> Logits:
    """Insert pixels into the blurred image.

    Source:
        As `deleted`. The blur is their kernel of 11 px with a standard deviation of 5 px, also for images smaller than
        theirs, with zeros beyond the border.
    """
    return subject.logits(torch.where(subject.mask(chosen), subject.images, subject.blurred))


def zeroed(subject: Subject, chosen: Chosen) -> Logits:
    """Set the embeddings of patches to zero, before the position is added.

    Source:
        Achtibat et al. 2024, AttnLRP (2402.05602). The area between the curves, least minus most relevant first, is
        the score. The logit is that of the explained class.
    """
    with _zero_embeddings(subject.model, chosen):
        return subject.logits(subject.images)


def removed(subject: Subject, chosen: Chosen) -> Logits:
    """Remove patches, as if they did not exist.

    Nothing is painted over a patch, so no step shows the model anything that is not in the image. The logit is
    followed, as it is what methods explain; the probability hardly changes for images that are classified with
    certainty.
    """
    return subject.remover.logits(torch.arange(len(chosen)), ~chosen).to(chosen.device)


def is_right(subject: Subject, logits: Logits) -> PerImage:
    """Return 1 where the top class is a true one, and 0 elsewhere."""
    return subject.truth.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0].float()


def logit(subject: Subject, logits: Logits) -> PerImage:
    """Return the logit of the explained class."""
    return logits.gather(1, subject.classes[:, None])[:, 0]


def probability(subject: Subject, logits: Logits) -> PerImage:
    """Return the probability of the explained class, without temperature."""
    return logit(subject, logits.sigmoid() if subject.is_multilabel else logits.softmax(dim=1))


@dataclass(frozen=True)
class Protocol:
    """A way to score explanations.

    Attributes:
        title: What is done, for figures.
        changes: What is done to the chosen units, for each of the two curves.
        follow: Computes what the curves show.
        follows: Its name.
        units: `pixels` or `patches`, which are chosen by their relevance.
        steps: Number of steps to change all units: for small models, for medium ones and for large ones.
        measures: Names of the areas of the two curves; or one name, of the second area minus the first one. Each with
            its column in tables, where an arrow says which values are better.
        curves: What the two curves show.
        has_both_ends: The second curve begins with the least relevant units.
        last: Tenths of the units at which the curves end.
        scale: Factor of the areas.
        cost: Cost of a step as a share of a forward pass.
    """

    title: str
    changes: tuple[Change, Change]
    follow: Callable[[Subject, Logits], PerImage]
    follows: str
    units: str
    steps: tuple[int, int, int]
    measures: Mapping[str, str]
    curves: tuple[str, str] = ("most relevant first (lower is better)", "least relevant first (higher is better)")
    has_both_ends: bool = True
    last: int = 10
    scale: float = 1.0
    cost: float = 1.0

    def counts(self, num_units: int, coarseness: int = 0) -> list[int]:
        """Return the number of units that are changed at each point of a curve, from 0, in nearly equal steps."""
        steps = min(num_units, self.steps[coarseness])
        return [self.last * num_units * step // (10 * steps) for step in range(steps + 1)]

    def passes(self, num_units: int, coarseness: int = 0) -> float:
        """Return the cost of both curves in forward passes per image, without the ends, which all maps share."""
        return 2 * self.cost * sum(0 < count < num_units for count in self.counts(num_units, coarseness))

    def run(self, subject: Subject, maps: PatchValues, coarseness: int = 0) -> Curves:
        """Compute both curves of each image for the values of its patches; `coarseness` chooses one of `steps`."""
        values = maps.flatten(1)
        if self.units == "pixels":
            values = upsampled(maps, subject.preprocess.img_size, subject.model.tokenizer.token_center)
        order = in_order(values, subject.seed)
        counts, curves = self.counts(order.shape[1], coarseness), list[Curve]()
        for change, units in zip(self.changes, (order, order.flip(1) if self.has_both_ends else order), strict=True):
            ranks = units.argsort(dim=1)
            found = (self.follow(subject, subject.after(change, ranks < count, count)) for count in counts)
            curves.append(torch.stack(list(found), dim=1).cpu())
        return Curves(torch.linspace(0, self.last / 10, len(counts)), *curves)

    def scores(self, curves: Curves) -> dict[str, PerImage]:
        """Return the score of each image by each measure: areas by the trapezoidal rule."""
        x, *both = (each.double() for each in curves)
        first, second = (self.scale * torch.trapezoid(curve, x) for curve in both)
        return dict(zip(self.measures, (first, second) if len(self.measures) == 2 else (second - first,), strict=True))


PROTOCOLS: Mapping[str, Protocol] = {
    "perturbation": Protocol(
        "pixels turned black", (black, black), is_right, "top-1 accuracy", "pixels", (9, 9, 3),
        {"positive": "black, most relevant first ↓", "negative": "black, least relevant first ↑"}, last=9, scale=100.0,
    ),
    "rise": Protocol(
        "pixels deleted and inserted", (deleted, inserted), probability, "probability", "pixels", (28, 14, 7),
        {"deletion": "deletion ↓", "insertion": "insertion ↑"},
        ("deletion (lower is better)", "insertion (higher is better)"), has_both_ends=False,
    ),
    "flipping": Protocol(
        "embeddings set to zero", (zeroed, zeroed), logit, "logit", "patches", (16, 8, 4),
        {"flipping": "embeddings to zero ↑"},
    ),
    # A step computes half of the tokens on average.
    "removal": Protocol(
        "tokens removed", (removed, removed), logit, "logit", "patches", (16, 8, 4),
        {"removal": "tokens removed ↑"}, cost=0.5,
    ),
}  # fmt: skip
LOWER_IS_BETTER = {name for item in PROTOCOLS.values() for name, text in item.measures.items() if text.endswith("↓")}


def blur(images: Images) -> Images:
    """Return the images blurred as RISE does."""
    from scipy.ndimage import gaussian_filter

    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1.0
    kernel = torch.from_numpy(gaussian_filter(impulse, 5.0)).to(images)
    channels = images.shape[1]
    return F.conv2d(images, kernel.expand(channels, 1, 11, 11), padding=5, groups=channels)


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
