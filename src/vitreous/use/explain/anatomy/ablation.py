"""Model, labeled images -> the accuracy that is lost without each head and without each block."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor, nn

from vitreous.model.change.merge import MergingEncoder
from vitreous.model.parts.encoder import Block
from vitreous.model.parts.relation import NO_RELATION
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Images, Targets
from vitreous.training.fit.evaluate import are_right
from vitreous.use.evaluate.paired import paired_interval

Rights = Bool[Tensor, "batch removals"]
"""Which images are classified correctly without each removed part."""


@dataclass(frozen=True)
class Loss:
    """The accuracy that is lost without each part, in [-1, 1], with its paired 95% interval in the last axis."""

    lost: NDArray[np.float64]
    intervals: NDArray[np.float64]

    @property
    def is_clear(self) -> NDArray[np.bool_]:
        """Parts whose interval excludes 0."""
        return (self.intervals[..., 0] > 0) | (self.intervals[..., 1] < 0)


def accuracy_lost(whole: NDArray[np.bool_], without: NDArray[np.bool_]) -> Loss:
    """Compare which images are right with the whole model, and without each part, `[images, *parts]`."""
    differences = whole.astype(np.float64).reshape(-1, *[1] * (without.ndim - 1)) - without
    intervals = np.apply_along_axis(paired_interval, 0, differences)
    return Loss(differences.mean(axis=0), np.moveaxis(intervals, 0, -1))


@torch.inference_mode()
def right_without_parts(
    model: VisionTransformer, images: Images, labels: Targets, thresholds: Tensor | float = 0.0
) -> tuple[Tensor, Rights, Rights]:
    """Classify images with the whole model, without each head, and without each block.

    A head is removed by setting its output to 0 before the projection that joins the heads. A block is removed by
    adding nothing to its input. If images may have several labels, those with logits above `thresholds` are predicted.

    Returns:
        Which images are right: `[batch]` with all parts, `[batch, blocks * heads]` without each head, block by block,
        and `[batch, blocks]` without each block.
    """
    embedded, relations = model.embed(images)
    blocks = cast("list[Block]", list(model.encoder.blocks))
    of_block = relations or [NO_RELATION] * len(blocks)
    is_merging = isinstance(model.encoder, MergingEncoder)  # its blocks pass on more than tokens
    entering = embedded if is_merging else model.encoder.norm_pre(embedded)

    def right(first: int) -> Tensor:
        """Finish the forward pass for the tokens that enter block `first`."""
        if is_merging:
            tokens = model.encoder(embedded, relations)
        else:
            tokens = entering
            for block, relation in zip(blocks[first:], of_block[first:], strict=True):
                tokens = block(tokens, relation)
            tokens = model.encoder.norm(tokens)
        return are_right(model.forward_head(tokens).float() - thresholds, labels).cpu()

    whole, heads, without_block = right(0), list[Tensor](), list[Tensor]()
    for number, block in enumerate(blocks):
        for head in range(block.attn.num_heads):
            with removed(block, head):
                heads.append(right(number))
        with removed(block):
            without_block.append(right(number))
        if not is_merging:
            entering = block(entering, of_block[number])
    return whole, torch.stack(heads, dim=1), torch.stack(without_block, dim=1)


@contextmanager
def removed(block: Block, head: int | None = None) -> Iterator[None]:
    """Context manager in which a block adds nothing to its input, or works without one of its heads."""

    def silence(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
        heads = args[0].unflatten(-1, (block.attn.num_heads, -1)).clone()
        heads[..., head, :] = 0
        return (heads.flatten(-2),)

    def vanish(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    if head is None:
        handles = [scale.register_forward_hook(vanish) for scale in (block.ls1, block.ls2)]
    else:
        handles = [block.attn.proj.register_forward_pre_hook(silence)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
