"""Model, images -> loss of the pixels of hidden patches: masked autoencoding (MAE) and SimMIM."""

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.objective.task import UnlabeledTask, at_least_float32
from vitreous.tensors import Images, Kept, Labels, Loss, Patches, PerImage, Probabilities


class MaskedModeling(UnlabeledTask):
    """Masked image modeling: a model sees a random part of the patches of an image and predicts the others.

    The model takes images and the numbers of the visible patches, and predicts the pixels of every patch. `patch_size`
    is the side of a patch in px. A fraction `mask_ratio` of the patches, in (0, 1), is hidden; at least one patch is
    visible and at least one is hidden. With `normalizes`, the targets are the pixels of each patch minus their mean and
    divided by their deviation, and the loss is the squared error, as in MAE; otherwise it is the absolute error of the
    pixels, as in SimMIM.

    Source:
        He et al. 2021, section 3 (2111.06377); Xie et al. 2021, section 3 (2111.09886). SimMIM hides squares of 32 px;
        here the hidden patches are independent of one another in both.
    """

    def __init__(self, *, patch_size: int, mask_ratio: float, normalizes: bool) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.mask_ratio = mask_ratio
        self.normalizes = normalizes

    def forward(
        self, model: nn.Module, images: Images, targets: Labels | Probabilities, total: Tensor | None = None
    ) -> tuple[Loss, Patches]:
        """Hide patches, run the model, and compute the loss. Arguments are those of `Task.forward`.

        Returns:
            The loss, and the predicted pixels of all patches.
        """
        side = self.patch_size
        pixels = rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=side, q=side)
        kept = draw_visible(len(images), pixels.shape[1], self.mask_ratio, images.device)
        predicted = model(images, kept)
        losses = masked_errors(predicted, pixels, hidden_from(kept, pixels.shape[1]), normalizes=self.normalizes)
        return losses.sum() / (len(images) if total is None else total), predicted

    def reconstruct(self, model: nn.Module, images: Images) -> tuple[Images, Images]:
        """Return what the model sees of images, with hidden pixels 0, and the images with these pixels predicted.

        Normalized predictions get mean and deviation of the visible patches around them, weighted by the inverse square
        of the distance, so that nothing of a hidden patch is used.
        """
        side, rows = self.patch_size, images.shape[-2] // self.patch_size
        pixels = rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=side, q=side)
        kept = draw_visible(len(images), pixels.shape[1], self.mask_ratio, images.device)
        hidden, predicted = hidden_from(kept, pixels.shape[1]).unsqueeze(2), model(images, kept)
        if self.normalizes:
            places = torch.cartesian_prod(*(torch.arange(n) for n in (rows, images.shape[-1] // side))).to(pixels)
            weights = (1 / torch.cdist(places, places).square().clamp(min=0.5)).expand(len(images), -1, -1)
            weights = weights * ~hidden.mT
            weights = weights / weights.sum(dim=2, keepdim=True)
            mean, scale = (weights @ known for known in patch_statistics(pixels))
            predicted = predicted * scale + mean
        pattern = "b (h w) (c p q) -> b c (h p) (w q)"
        seen = rearrange(pixels.masked_fill(hidden, 0), pattern, h=rows, p=side, q=side)
        completed = torch.where(hidden, predicted.to(pixels.dtype), pixels)
        return seen, rearrange(completed, pattern, h=rows, p=side, q=side)


def draw_visible(batch: int, num_patches: int, mask_ratio: float, device: torch.device) -> Kept:
    """Draw the numbers of the visible patches of each image, with torch's global generator."""
    num_visible = min(max(1, round(num_patches * (1 - mask_ratio))), num_patches - 1)
    order = torch.rand(batch, num_patches, device=device).argsort(dim=1)
    return order[:, :num_visible].sort(dim=1).values


def hidden_from(kept: Kept, num_patches: int) -> Bool[Tensor, "batch patches"]:
    """Return which patches are hidden if only these are visible."""
    every = torch.ones(len(kept), num_patches, dtype=torch.bool, device=kept.device)
    return every.scatter(1, kept, False)


def masked_errors(
    predicted: Patches, pixels: Patches, hidden: Bool[Tensor, "batch patches"], *, normalizes: bool
) -> PerImage:
    """Return the mean error of each image over the values of its hidden patches, in float32 or better."""
    predicted = at_least_float32(predicted)
    if normalizes:
        mean, scale = patch_statistics(pixels)
        errors = F.mse_loss(predicted, (pixels - mean) / scale, reduction="none")
    else:
        errors = F.l1_loss(predicted, pixels, reduction="none")
    return (errors.mean(dim=2) * hidden).sum(dim=1) / hidden.sum(dim=1)


def patch_statistics(pixels: Patches) -> tuple[Patches, Patches]:
    """Return mean and deviation of the values of each patch, `[batch, patches, 1]`, as the code of MAE does."""
    return pixels.mean(dim=2, keepdim=True), (pixels.var(dim=2, keepdim=True) + 1e-6).sqrt()
