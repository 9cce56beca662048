"""Model, images -> how its tokens change from block to block: distance of attention, similarity, norms, features."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.model.change.merge import Merged, unmerge
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Images, PerImage
from vitreous.use.explain.trace import trace

Maps = Float[Tensor, "batch heads tokens tokens"]

OUTLIER_FACTOR = 3.0
"""A norm is an outlier if it is more than this number of times the median of its depth. The outliers of Darcet et al.
2023 have about 10 times the norm of other patches."""


@dataclass(frozen=True)
class Observed:
    """What the tokens of some images look like. Depth 0 is before the first block, depth n after block n.

    Attributes:
        distances: How far each head looks, in px, `[images, blocks, heads]`.
        similarity: Mean cosine similarity of the patches of an image, `[images, depths]`; NaN for one patch.
        norms: Length of each patch token, `[images, depths, rows, columns]`.
        features: What the head would read if the model ended at this depth, `[images, depths, features]`.
        logits: `[images, classes]`.
    """

    distances: NDArray[np.float32]
    similarity: NDArray[np.float32]
    norms: NDArray[np.float32]
    features: NDArray[np.float32]
    logits: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: "list[Observed]") -> "Observed":
        """Return what was observed on all images of several batches."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def observe(model: VisionTransformer, images: Images) -> Observed:
    """Run the model once and summarize its tokens at each depth.

    If the model merges tokens, each patch counts with the token that it was merged into.
    """
    with torch.no_grad():
        found = trace(model, images)
        depths = list(map(unmerge, found.states, found.merged))
        features = [model.forward_head(model.encoder.norm(tokens), pre_logits=True) for tokens in depths]
        count, side = found.num_prefix_tokens, model.config.patch_size
        maps = map(_between_all, found.maps, found.merged)
        distances = [attention_distance(between, found.grid_size, count, side) for between in maps]
        similarity = [token_similarity(tokens[:, count:]) for tokens in depths]
        norms = [found.patches(tokens.float().norm(dim=2)) for tokens in depths]
        stacked = [torch.stack(stack, dim=1) for stack in (distances, similarity, norms, features)]
        return Observed(*(values.float().cpu().numpy() for values in (*stacked, found.logits)))


def attention_distance(
    maps: Maps, grid_size: tuple[int, int], num_prefix_tokens: int, patch_size: int
) -> Float[Tensor, "batch heads"]:
    """Return how far each head looks, in px: the mean distance of the centers of query and key, weighted by attention.

    The mean is over all patches as queries. Attention to and from prefix tokens, which have no place, is left out.

    Source:
        Dosovitskiy et al. 2021, figure 7 right and figure 11 (2010.11929).
    """
    between = cell_distances(grid_size, patch_size).to(maps.device)
    weights = maps[:, :, num_prefix_tokens:, num_prefix_tokens:].float()
    total = weights.sum(dim=3).clamp(min=torch.finfo(torch.float32).tiny)
    return ((weights * between).sum(dim=3) / total).mean(dim=2)


def cell_distances(grid_size: tuple[int, int], patch_size: int) -> Float[Tensor, "patches patches"]:
    """Return the distance between the centers of each pair of patches, in px."""
    cells = torch.cartesian_prod(*map(torch.arange, grid_size)).reshape(-1, 2).float() * patch_size
    return torch.cdist(cells, cells)


def token_similarity(patches: Float[Tensor, "batch patches embed_dim"]) -> PerImage:
    """Return the mean cosine similarity between the patches of each image, over all pairs; NaN for one patch.

    Source:
        Gong et al. 2021 (2104.12753), who average the absolute values of the cosines.
    """
    unit = torch.nn.functional.normalize(patches.float(), dim=2)
    count = unit.shape[1]
    # The squared length of the sum of unit vectors is the sum of all cosines, those of a patch with itself included.
    pairs = unit.sum(dim=1).square().sum(dim=1) - unit.square().sum(dim=(1, 2))
    return pairs / (count * (count - 1)) if count > 1 else torch.full_like(pairs, torch.nan)


def norm_outliers(norms: NDArray[np.float32], factor: float = OUTLIER_FACTOR) -> NDArray[np.bool_]:
    """Return which patches have more than `factor` times the median norm of their depth, over all images and patches.

    Source:
        Darcet et al. 2023, section 2.1 (2309.16588). They choose a threshold by eye for each model.
    """
    return norms > factor * np.median(norms, axis=(0, 2, 3), keepdims=True)


def _between_all(maps: Maps, merged: Merged | None) -> Maps:
    """Return attention between all tokens; those that have merged share that of their key and have their query's."""
    if merged is None:
        return maps
    num_heads, num_tokens, num_left = maps.shape[1], merged.source.shape[1], maps.shape[3]
    queries = rearrange(merged.source, "b n -> b 1 n 1").expand(-1, num_heads, -1, num_left)
    keys = rearrange(merged.source, "b n -> b 1 1 n").expand(-1, num_heads, num_tokens, -1)
    return (maps.gather(2, queries) / rearrange(merged.sizes, "b m -> b 1 1 m")).gather(3, keys)
