"""Model -> what its weights show without any image: filters of the patches, similarity of positions."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from vitreous.model.parts.embedding import LearnedPosition
from vitreous.model.parts.tokenizer import NormedTokenizer, ShiftedTokenizer, Tokenizer
from vitreous.model.vit import VisionTransformer
from vitreous.use.explain.anatomy.space import principal_components

MOST_FILTERS = 28
"""Number of components that figure 7 of the ViT paper shows."""


@dataclass(frozen=True)
class Filters:
    """Principal components of the `count` filters of a layer (`what`), and the share of the variance of each.

    `images` are `[components, channels, height, width]`, the most important first.
    """

    images: NDArray[np.float64]
    shares: NDArray[np.float64]
    count: int
    what: str


def patch_filters(model: VisionTransformer, most: int = MOST_FILTERS) -> Filters:
    """Return the principal components of the patch projection, or of the first convolution of a convolutional stem.

    If a norm comes before the projection, its scale is part of the filters. A shifted tokenizer also sees shifted
    copies of the image; its filters for the image itself are shown. There are at most `most` components.

    Source:
        Dosovitskiy et al. 2021, figure 7 left (2010.11929).
    """
    filters, what = _first_layer(model)
    rows = filters.detach().flatten(1).double().cpu().numpy()
    components, shares = principal_components(rows, most)
    return Filters(components.reshape(-1, *filters.shape[1:]), shares, len(rows), what)


def position_similarity(model: VisionTransformer) -> NDArray[np.float64] | str:
    """Return the cosine similarity of each pair of position embeddings, or why there are none to compare.

    Returns:
        `[rows, columns, rows, columns]`, in [-1, 1]; 0 for an embedding of zeros.

    Source:
        Dosovitskiy et al. 2021, figure 7 center (2010.11929).
    """
    if not isinstance(model.position, LearnedPosition):
        return _other_position(model)
    if model.position.grid.shape[:2].numel() == 1:
        return "an image is one patch, so there is nothing to compare"
    grid = model.position.grid.detach().double().cpu()
    unit = nn.functional.normalize(grid, dim=2)
    return torch.einsum("hwd,xyd->hwxy", unit, unit).numpy()


def _first_layer(model: VisionTransformer) -> tuple[Float[Tensor, "filters channels height width"], str]:
    tokenizer = model.tokenizer
    if not isinstance(tokenizer, Tokenizer):
        kernel: Tensor = next(module.weight for module in tokenizer.modules() if isinstance(module, nn.Conv2d))
        return kernel, f"the first convolution of {kernel.shape[2]}x{kernel.shape[3]} px"
    weight, side = tokenizer.proj.weight, tokenizer.patch_size
    if isinstance(tokenizer, ShiftedTokenizer | NormedTokenizer):
        weight = weight * tokenizer.norm.weight
    own = weight[:, : tokenizer.in_chans * side**2]
    return own.unflatten(1, (tokenizer.in_chans, side, side)), f"the projection of patches of {side}x{side} px"


def _other_position(model: VisionTransformer) -> str:
    config = model.config
    if config.position != "none":
        return f"the position embeddings are fixed waves ({config.position}), so nothing is learned"
    if config.rotary != "none":
        return f"positions rotate the queries and keys of attention ({config.rotary}); nothing is added to the patches"
    if config.relative_bias:
        return "positions are a learned bias on the attention scores; nothing is added to the patches"
    return "the model has no position embeddings"
