"""Model, images -> Shapley values of super-tokens, against which the values of any method are compared."""

from vitreous.data.workers import Progress
from vitreous.model.cost.count import count_flops
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Images
from vitreous.use.explain.methods.shapley import shapley
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.removal.exact_shapley import exact_shapley
from vitreous.use.explain.target import Target

NUM_SAMPLED, _MOST_EXACT, _FEWEST_EXACT = 12, 6, 4
"""Number of images with sampled values, and with exact ones, which take seconds to a minute for each image."""
_BUDGET_FLOPS = 1e13
"""Values are sampled unless this is enough for four images."""
_NUM_PERMUTATIONS = 64


def affordable_exact(model: VisionTransformer) -> int:
    """Return for how many images exact values are computed, up to 6; 0 if they are sampled."""
    rows, columns = _cells(model)
    # A coalition has half of the patches on average.
    count = int(_BUDGET_FLOPS / (2 ** (rows * columns - 1) * count_flops(model.config)))
    return min(count, _MOST_EXACT) if count >= _FEWEST_EXACT else 0


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
    cells = _cells(model)
    if not affordable_exact(model):
        return shapley(model, images, target, num_permutations=_NUM_PERMUTATIONS, cells=cells, precision=precision)
    return Relevance(exact_shapley(model, images, target, cells=cells, precision=precision, progress=progress).values)


def _cells(model: VisionTransformer) -> tuple[int, int]:
    rows, columns = model.config.grid_size
    return min(4, rows), min(4, columns)
