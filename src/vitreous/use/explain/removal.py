"""Model, images, sets of patches -> logits of the images with only these patches: the others are removed."""

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vitreous.model.parts.pool import ClassTokenPool, TokenMeanPool
from vitreous.model.parts.relation import Relation, select
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Images, Logits, Tokens
from vitreous.training.machine.device import autocast

BATCH_TOKENS = 16_384
"""Tokens that are computed at once; larger batches take more memory and are no faster on a CPU."""


class PatchRemoval:
    """The logits of images from which patches are removed.

    A removed patch does not exist for the encoder: attention has fewer keys, and the pool reads fewer tokens. The other
    patches keep their positions. A model that was trained with `model.patch_drop_rate` has seen such inputs. Nothing
    has to be painted over the patch, which would be evidence too.

    Stems whose tokens also see neighboring patches would leak a removed patch into its neighbors. For them, the pixels
    of removed patches are set to the mean color of the training images first (`masks_pixels`).

    Without any patch, pools that read the class token read it after it has attended to the other prefix tokens. Pools
    that read patches give features of zero.

    Args:
        model: In evaluation mode.
        images: `[batch, channels, height, width]`, normalized.
        precision: `fp32` or `bf16`.
    """

    def __init__(self, model: VisionTransformer, images: Images, precision: str = "fp32") -> None:
        self.model = model
        self.images = images
        self.precision = precision
        self.grid_size = model.tokenizer.grid_size(images)
        self.masks_pixels = model.config.stem in ("conv", "cct", "shifted")
        with torch.inference_mode(), autocast(images.device, precision):
            self._tokens, self._relations = model.embed(images)

    @property
    def num_patches(self) -> int:
        """Number of patches of an image."""
        rows, columns = self.grid_size
        return rows * columns

    @torch.inference_mode()
    def logits(
        self, numbers: Int64[Tensor, " sets"], kept: Bool[Tensor, "sets patches"]
    ) -> Float[Tensor, "sets classes"]:
        """Return the logits of images with some of their patches.

        Args:
            numbers: For each set, the number of the image in the batch.
            kept: For each set, which patches are kept.
        """
        sizes = kept.sum(dim=1)
        found = torch.empty(len(kept), self.model.num_classes)
        for size in sizes.unique().tolist():
            chosen = (sizes == size).nonzero()[:, 0]
            for some in chosen.split(max(1, BATCH_TOKENS // (size + self.model.num_prefix_tokens + 1))):
                present = kept[some].nonzero()[:, 1].view(len(some), size)
                found[some] = self._of_one_size(numbers[some], present, kept[some]).float().cpu()
        return found

    def _of_one_size(
        self, numbers: Int64[Tensor, " sets"], present: Int64[Tensor, "sets size"], kept: Bool[Tensor, "sets patches"]
    ) -> Logits:
        """Return the logits of sets with the same number of patches; `present` lists them in ascending order."""
        model, count = self.model, self.model.num_prefix_tokens
        with autocast(self.images.device, self.precision):
            if self.masks_pixels:
                tokens, relations = model.embed(self._masked(numbers, kept))
            else:
                tokens, relations = self._tokens[numbers], self._relations
            prefix = torch.arange(count, device=tokens.device).expand(len(numbers), -1)
            places = torch.cat([prefix, present + count], dim=1)
            tokens = tokens.gather(1, rearrange(places, "s n -> s n 1").expand(-1, -1, tokens.shape[2]))
            if relations is not None:
                relations = [select(relation, places) for relation in relations]
            if present.shape[1] == 0:
                return self._without_patches(tokens, relations)
            return model.forward_head(model.encoder(tokens, relations))

    def _without_patches(self, prefix: Tokens, relations: Sequence[Relation] | None) -> Logits:
        """Return the logits of prefix tokens only; see the class."""
        model, pool = self.model, self.model.pool
        features = prefix.new_zeros(len(prefix), model.num_features)
        if isinstance(pool, ClassTokenPool | TokenMeanPool):
            read = pool.num_read if isinstance(pool, ClassTokenPool) else 1
            first = model.encoder(prefix, relations)[:, :read].flatten(1)
            features = torch.cat([first, features[:, first.shape[1] :]], dim=1)
        return model.head(model.fc_norm(features))

    def _masked(self, numbers: Int64[Tensor, " sets"], kept: Bool[Tensor, "sets patches"]) -> Images:
        """Return the images with the pixels of removed patches set to 0, which is the mean color once normalized."""
        rows, columns = self.grid_size
        side = self.model.config.patch_size
        shown = repeat(kept.to(self.images.dtype), "s (h w) -> s 1 (h p) (w q)", h=rows, w=columns, p=side, q=side)
        return self.images[numbers] * shown
