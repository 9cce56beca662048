"""Model, images -> Shapley values of super-tokens, against which the values of any method are compared."""

from vitreous.data.workers import Progress
from vitreous.model.cost.count import count_flops
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Images
from vitreous.use.explain.exact_shapley import exact_shapley
from vitreous.use.explain.methods.shapley import shapley
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.target import Target

_MOST_FLOPS = 5e13
"""More expensive values are sampled instead of computed exactly; this takes minutes on two cores."""
_NUM_PERMUTATIONS = 64


def reference_values(
    model: VisionTransformer, images: Images, target: Target, precision: str, progress: Progress
) -> Relevance:
    """Return the Shapley values of at most 4x4 super-tokens, with standard errors if they are sampled.

    Args:
        model: In evaluation mode.
        images: Normalized.
        target: The score.
        precision: Precision of the forward passes.
        progress: Called with (done, total) for exact values.
    """
    rows, columns = (min(4, side) for side in model.tokenizer.grid_size(images))
    # A coalition has half of the patches on average.
    if 2 ** (rows * columns - 1) * count_flops(model.config) * len(images) > _MOST_FLOPS:
        return shapley(
            model, images, target, num_permutations=_NUM_PERMUTATIONS, cells=(rows, columns), precision=precision
        )
    exact = exact_shapley(model, images, target, cells=(rows, columns), precision=precision, progress=progress)
    return Relevance(exact.values)
