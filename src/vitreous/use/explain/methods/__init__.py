"""Name -> a method that explains a score: a function of (model, images, target), with what it costs and means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from vitreous.errors import UnknownNameError, nearest
from vitreous.tensors import Images
from vitreous.use.explain.methods.attention import attention, rollout
from vitreous.use.explain.methods.gradients import (
    attention_attribution,
    grad_cam,
    gradient_attention,
    integrated_gradients,
    legrad,
)
from vitreous.use.explain.methods.removal import occlusion, shapley
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.target import Target

Explain = Callable[[nn.Module, Images, Target], Relevance]
"""A function of a Vision Transformer, normalized images and the score to explain."""


@dataclass(frozen=True)
class Method:
    """A method that explains a score.

    Attributes:
        explain: Computes the relevance of each patch from (model, images, target). It may take further arguments by
            name, all with defaults.
        label: Name for figures and tables.
        summary: One sentence on what the values mean, and on what the method ignores.
        is_class_specific: The values depend on the target.
        is_signed: Values below 0 mean that a patch lowers the score.
        passes: Cost of the values of an image in forward passes; a backward pass that ends at images costs one.
        passes_per_patch: What each patch adds to it.
    """

    explain: Explain
    label: str
    summary: str
    is_class_specific: bool = True
    is_signed: bool = False
    passes: float = 0.0
    passes_per_patch: float = 0.0

    def __call__(self, model: nn.Module, images: Images, target: Target | None = None, **options: Any) -> Relevance:
        """Explain a batch of normalized images; None explains the predicted class of each image."""
        return self.explain(model, images, target or Target(), **options)

    def cost(self, num_patches: int) -> float:
        """Return the cost of the values of an image in forward passes."""
        return self.passes + self.passes_per_patch * num_patches


METHODS: Mapping[str, Method] = {
    "attention-attribution": Method(
        attention_attribution,
        "attention attribution",
        "how much the score depends, to first order, on the attention that a patch gets in all blocks",
        is_signed=True,
        passes=2.3,
    ),
    "gradient-attention": Method(
        gradient_attention,
        "gradient × attention",
        "attention weighted by the gradient of the score, passed on from block to block",
        passes=2.3,
    ),
    "legrad": Method(
        legrad,
        "LeGrad",
        "how much more attention to a patch would raise the score that the tokens of each layer get",
        passes=2.1,
    ),
    "grad-cam": Method(
        grad_cam,
        "Grad-CAM",
        "channels of the tokens near the end of the encoder, weighted by the mean gradient of the score",
        passes=1.4,
    ),
    "integrated-gradients": Method(
        integrated_gradients,
        "integrated gradients",
        "share of each patch in the change of the score from an image of the mean color to this one; patches of that "
        "color get 0",
        is_signed=True,
        passes=66.0,
    ),
    "rollout": Method(
        rollout,
        "attention rollout",
        "attention multiplied over all blocks: a baseline that ignores the class and LayerScale",
        is_class_specific=False,
        passes=1.2,
    ),
    "attention": Method(
        attention,
        "attention of the last layer",
        "what the last layer looks at: ignores the class and all that follows the attention",
        is_class_specific=False,
        passes=1.2,
    ),
    "occlusion": Method(
        occlusion,
        "occlusion",
        "how much the score falls when a patch is removed; misses evidence that other patches show too",
        is_signed=True,
        passes_per_patch=1.0,
    ),
    "shapley": Method(
        shapley,
        "Shapley values",
        "how much a patch raises the score when it is added to a random set of other patches, on average; estimated "
        "from random orders, with standard errors",
        is_signed=True,
        passes_per_patch=8.0,
    ),
}
"""The methods by name, the default first.

On marks that models of hand signs use (`benchmarks/shortcuts.py`), the default has two to six times the share of the
area, the other methods with one backward pass one to two times.
"""

DEFAULT = next(iter(METHODS))


def method_named(name: str) -> Method:
    """Return a method. Raises UnknownNameError if there is no such method."""
    if name not in METHODS:
        raise UnknownNameError(f"method={name}: no such method; {nearest(name, METHODS)}")
    return METHODS[name]
