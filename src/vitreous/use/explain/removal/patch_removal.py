"""Model, images, sets of patches -> logits of the images with only these patches: the others are removed."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from vitreous.model.change.trim import can_trim, pool_trimmed
from vitreous.model.parts.relation import select
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Images, Logits
from vitreous.training.machine.device import autocast, resolve_precision
from vitreous.use.explain.target import Target

BATCH_TOKENS = 8_192
"""Tokens that a CPU computes at once: larger batches take more memory and up to 20% more time, because they leave its
caches. Other devices compute eight times this number, so that they do not wait for the host."""


class PatchRemoval:
    """The logits of images from which patches are removed.

    A removed patch does not exist for the encoder: attention has fewer keys, and the pool reads fewer tokens. The other
    patches keep their positions. A model that was trained with `model.patch_drop_rate` has seen such inputs. Nothing
    has to be painted over the patch, which would be evidence too.

    Stems whose tokens also see neighboring patches would leak a removed patch into its neighbors. For them, the pixels
    that are nearest to removed tokens are set to the mean color of the training images first (`masks_pixels`).

    Without any patch, the class token and the other prefix tokens attend only to each other, and pools that read
    patches read one token of zeros.

    The model is in evaluation mode, and the images are normalized. `precision` is `fp32`, `tf32`, `bf16`, or `auto` for
    the fastest one that the hardware has.
    """

    def __init__(self, model: VisionTransformer, images: Images, precision: str = "fp32") -> None:
        self.model = model
        self.images = images
        self.precision = resolve_precision(precision, images.device)
        self.grid_size = model.tokenizer.grid_size(images)
        self.masks_pixels = model.config.stem in ("conv", "cct", "shifted")
        with torch.inference_mode(), autocast(images.device, self.precision):
            self._tokens, self._relations = model.embed(images)

    @property
    def num_patches(self) -> int:
        """Number of patches of an image."""
        rows, columns = self.grid_size
        return rows * columns

    def fixed(self, target: Target) -> Target:
        """Return the target with a class number for each image. Raises ConfigError as `Target.fixed` does."""
        images = torch.arange(len(self.images))
        return target.fixed(self.logits(images, torch.ones(len(images), self.num_patches, dtype=torch.bool)))

    def scores(self, target: Target, kept: Bool[Tensor, "sets patches"]) -> Float64[Tensor, "batch sets"]:
        """Return the score, for a target from `fixed`, of each image with each set of kept patches, on the CPU."""
        count = len(kept)
        found = torch.empty(len(self.images) * count, dtype=torch.float64)
        numbers = torch.arange(len(self.images)).repeat_interleave(count)
        for some, logits in self._batches(numbers, torch.arange(count).repeat(len(self.images)), kept):
            found[some] = target.of(numbers[some]).scores(logits).double()
        return found.view(len(self.images), count)

    def logits(
        self, numbers: Int64[Tensor, " sets"], kept: Bool[Tensor, "sets patches"]
    ) -> Float[Tensor, "sets classes"]:
        """Return the logits of images, by their number in the batch, with some of their patches; float32 on the CPU."""
        found = torch.empty(len(kept), self.model.num_classes)
        for some, logits in self._batches(numbers, torch.arange(len(kept)), kept):
            found[some] = logits
        return found

    def _batches(
        self, numbers: Int64[Tensor, " pairs"], sets: Int64[Tensor, " pairs"], kept: Bool[Tensor, "sets patches"]
    ) -> Iterator[tuple[Int64[Tensor, " some"], Logits]]:
        """Yield logits, float32 on the CPU, of some pairs of an image and a set, and which pairs these are.

        All sets of a batch have the same number of patches.
        """
        numbers, kept = numbers.cpu(), kept.cpu()
        sizes, most = kept.sum(dim=1)[sets], BATCH_TOKENS * (1 if self.images.device.type == "cpu" else 8)
        for size in sizes.unique().tolist():
            # A masked image enters the stem as a whole.
            length = self.model.num_prefix_tokens + (self.num_patches if self.masks_pixels else size)
            for some in (sizes == size).nonzero()[:, 0].split(max(1, most // max(1, length))):
                chosen = kept[sets[some]]
                present = chosen.nonzero()[:, 1].view(len(some), size)
                with torch.inference_mode(), autocast(self.images.device, self.precision):
                    logits = self._of_one_size(*(x.to(self.images.device) for x in (numbers[some], chosen, present)))
                yield some, logits.float().cpu()

    def _of_one_size(
        self, numbers: Int64[Tensor, " sets"], kept: Bool[Tensor, "sets patches"], present: Int64[Tensor, "sets size"]
    ) -> Logits:
        """Return the logits of sets with the same number of patches; `present` lists them in ascending order."""
        model, tokens, count = self.model, self._tokens, self.model.num_prefix_tokens
        if self.masks_pixels:
            tokens, _ = model.embed(self._masked(numbers, kept))
            numbers = torch.arange(len(numbers), device=tokens.device)
        prefix = torch.arange(count, device=tokens.device).expand(len(numbers), -1)
        places = torch.cat([prefix, present + count], dim=1)
        tokens = tokens[numbers[:, None], places]
        relations = self._relations and [select(relation, places) for relation in self._relations]
        if can_trim(model):
            return model.head(pool_trimmed(model, model.encoder.norm_pre(tokens), relations, 0))
        encoded = model.encoder(tokens, relations) if places.shape[1] else tokens
        return model.forward_head(encoded if present.shape[1] else F.pad(encoded, (0, 0, 0, 1)))

    def _masked(self, numbers: Int64[Tensor, " sets"], kept: Bool[Tensor, "sets patches"]) -> Images:
        """Return the images with the pixels of removed tokens set to 0, which is the mean color once normalized."""
        rows, columns = (self.model.tokenizer.nearest_tokens(count).to(kept.device) for count in self.grid_size)
        shown = kept.view(-1, 1, *self.grid_size)[:, :, rows][:, :, :, columns]
        return self.images[numbers] * shown
