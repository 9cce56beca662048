"""The models of `models.py` in float64, and their logits without some patches by plain indexing."""

from typing import Any

import torch
from tests.unit.use.explain import models
from torch import Tensor

from vitreous.model.vit import VisionTransformer

KINDS = [kind for kind in models.KINDS if kind not in ("dynamic", "bf16", "autocast")]  # 2x3 patches, float64
LINEAR = [kind for kind in KINDS if kind not in ("conv", "cct", "shifted")]


def make_model(kind: str = "token", **changes: Any) -> VisionTransformer:
    """Build a float64 model in evaluation mode in which every weight is random."""
    return models.make_model(kind, torch.float64, **changes)


def draw_images(count: int = 2, size: tuple[int, int] = (8, 12)) -> Tensor:
    """Draw normalized float64 images."""
    return models.draw_images(count, torch.float64, size)


@torch.no_grad()
def logits_of(model: VisionTransformer, image: Tensor, kept: list[int]) -> Tensor:
    """Return the logits of an image, `[1, channels, height, width]`, with some of its patches, by plain indexing.

    `kept` are numbers of patches, at least one.
    """
    if model.config.stem in ("conv", "cct", "shifted"):
        image, (rows, columns), side = image.clone(), model.config.grid_size, model.config.patch_size
        shift = 0 if model.config.stem == "shifted" else side // 2  # convolutions see the upper left corner of a square
        for number in set(range(model.config.num_patches)) - set(kept):
            row, column = divmod(number, columns)
            bottom, right = (n * side - shift if n < count else n * side
                             for n, count in ((row + 1, rows), (column + 1, columns)))  # fmt: skip
            image[:, :, max(0, row * side - shift) : bottom, max(0, column * side - shift) : right] = 0
    tokens, relations = model.embed(image)
    count = model.num_prefix_tokens
    places = [*range(count), *(count + number for number in kept)]
    if relations is not None:
        relations = [
            type(relation)(
                None if relation.cos is None else relation.cos[:, :, places],
                None if relation.sin is None else relation.sin[:, :, places],
                None if relation.bias is None else relation.bias[:, :, places][:, :, :, places],
            )
            for relation in relations
        ]
    return model.forward_head(model.encoder(tokens[:, places], relations))[0]
