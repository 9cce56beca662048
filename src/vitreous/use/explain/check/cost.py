"""Model, methods -> what a check costs in forward passes, and how many images and steps are affordable."""

from collections.abc import Iterable
from math import prod

from vitreous.model.cost.count import count_flops
from vitreous.model.vit import VisionTransformer
from vitreous.use.explain.check.protocols import PROTOCOLS
from vitreous.use.explain.methods import Method

MOST_IMAGES, ENOUGH_IMAGES, FEWEST_CHOSEN = 200, 50, 20
NUM_REFERENCES = 2
COARSEST = 2
"""Index of the fewest steps of each protocol."""
NUM_SAMPLED, NUM_ORDERS, _MOST_EXACT, _FEWEST_EXACT = 12, 32, 6, 4
"""Number of images with sampled Shapley values, random orders of each, and bounds of the number with exact values."""
_BUDGET_FLOPS, _EXACT_FLOPS = 1e14, 1e13
"""What a check may take unless the user asks for more images, minutes on two cores; and exact Shapley values."""


def cells_of(model: VisionTransformer) -> tuple[int, int]:
    """Return rows and columns of super-tokens whose Shapley values are computed, at most 4x4."""
    rows, columns = model.config.grid_size
    return min(4, rows), min(4, columns)


def num_exact(model: VisionTransformer) -> int:
    """Return for how many images exact Shapley values are computed, up to 6; 0 if they are sampled."""
    # A coalition has half of the patches on average.
    count = int(_EXACT_FLOPS / (2 ** (prod(cells_of(model)) - 1) * count_flops(model.config)))
    return min(count, _MOST_EXACT) if count >= _FEWEST_EXACT else 0


def passes_of_shapley(model: VisionTransformer) -> float:
    """Return the forward passes of the Shapley values of all images."""
    num_cells = prod(cells_of(model))
    return num_exact(model) * 2 ** (num_cells - 1) or NUM_SAMPLED * NUM_ORDERS * num_cells / 2


def passes_per_image(model: VisionTransformer, methods: Iterable[Method], coarseness: int) -> float:
    """Return the forward passes of a check for each image: maps of methods, and curves of these and of references."""
    (height, width), num_patches = model.config.img_size, model.config.num_patches
    num_units = {"pixels": height * width, "patches": num_patches}
    per_map = sum(protocol.passes(num_units[protocol.units], coarseness) for protocol in PROTOCOLS.values())
    return sum(method.cost(num_patches) + per_map for method in methods) + NUM_REFERENCES * per_map


def affordable(
    model: VisionTransformer, methods: Iterable[Method], num_available: int, num_images: int | None
) -> tuple[int, int]:
    """Return the number of images, and the coarseness of the steps: as fine as possible for enough images.

    `num_images` is what the user asks for; None for the number that is affordable, from 20 to 200.
    """
    budget, most, coarseness = _BUDGET_FLOPS / count_flops(model.config), 0, 0
    for coarseness in range(COARSEST + 1):
        most = int((budget - passes_of_shapley(model)) / passes_per_image(model, methods, coarseness))
        if most >= min(num_available, num_images or ENOUGH_IMAGES):
            break
    return num_images or min(MOST_IMAGES, max(FEWEST_CHOSEN, most)), coarseness
