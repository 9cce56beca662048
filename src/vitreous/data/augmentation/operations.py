"""Images, a strength for each -> images with other colors: the operations of augmentation policies, for whole batches.

They correspond to `adjust_brightness`, `posterize`, `equalize` … of torchvision, but each image has its own strength.
For whole-number levels, each result equals that of Pillow within one level, as Pillow cuts off fractions and these
functions do not. One-channel images are treated like Pillow's mode `L`. In images of other than 1 or 3 channels, each
channel is treated like that by itself, so that operations on color change nothing.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vitreous.tensors import PerImage, Varied
from vitreous.transfer import to_device

LUMA_WEIGHTS = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""Weights of red, green and blue in ITU-R 601-2, to the precision of Pillow."""
SMOOTHING_KERNEL = ((1 / 13, 1 / 13, 1 / 13), (1 / 13, 5 / 13, 1 / 13), (1 / 13, 1 / 13, 1 / 13))
"""Pillow's `ImageFilter.SMOOTH`."""
BLUR_PASSES = 3
"""Box blurs per axis that approximate a Gaussian blur, as in Pillow."""


def brightness(images: Varied, factor: PerImage) -> Varied:
    """Blend with a black image: darker for factors below 1, brighter above."""
    return _blend(torch.zeros_like(images), images, factor)


def contrast(images: Varied, factor: PerImage) -> Varied:
    """Blend with a plain image of the mean luma: less contrast for factors below 1, more above."""
    mean = torch.floor(_rounded(_luma(images)).mean(dim=(2, 3), keepdim=True) + 0.5)
    return _blend(mean, images, factor)


def saturation(images: Varied, factor: PerImage) -> Varied:
    """Blend with the gray image: paler for factors below 1, more colorful above; images without color stay."""
    return _blend(_rounded(_luma(images)), images, factor) if images.shape[1] == 3 else images


def sharpness(images: Varied, factor: PerImage) -> Varied:
    """Blend with the image smoothed over 3×3 px: blurrier for factors below 1, sharper above; the border stays."""
    if min(images.shape[-2:]) < 3:
        return images
    kernel = to_device(torch.tensor(SMOOTHING_KERNEL, dtype=images.dtype), images.device).view(1, 1, 3, 3)
    inner = rearrange(F.conv2d(rearrange(images, "b c h w -> (b c) 1 h w"), kernel),
                      "(b c) 1 h w -> b c h w", c=images.shape[1])  # fmt: skip
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = _rounded(inner)
    return _blend(smooth, images, factor)


def posterize(images: Varied, bits: PerImage) -> Varied:
    """Keep the highest `bits` of 8 bits, whole numbers from 1 to 8."""
    width = _per_image(2.0 ** (8 - bits), images)
    return torch.floor(images / width) * width


def solarize(images: Varied, threshold: PerImage) -> Varied:
    """Invert the values from `threshold` on; 256 changes nothing."""
    return torch.where(images < _per_image(threshold, images), images, invert(images))


def autocontrast(images: Varied) -> Varied:
    """Stretch each channel so that its lowest value becomes 0 and its highest 255; a constant channel stays."""
    lowest, highest = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    span = highest - lowest
    return torch.where(span > 0, (images - lowest) * (255 / span.clamp(min=1e-6)), images).clamp(0, 255)


def equalize(images: Varied) -> Varied:
    """Equalize the histogram of each channel; the result has whole-number levels."""
    levels = rearrange(_rounded(images).clamp(0, 255).long(), "b c h w -> (b c) (h w)")
    counts = torch.zeros(len(levels), 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    step = (levels.shape[1] - counts.gather(1, levels.amax(dim=1, keepdim=True))) // 255
    darker = counts.cumsum(dim=1) - counts
    table = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    # Like Pillow, do not change a channel with few pixels, or with nearly all pixels at its highest level.
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    found = table.gather(1, levels).to(images.dtype)
    return found.view_as(images)


def invert(images: Varied) -> Varied:
    """Replace each value v with 255 − v."""
    return 255 - images


def grayscale(images: Varied) -> Varied:
    """Replace each color with its luma; the number of channels stays, and so do images without color."""
    return _luma(images).expand_as(images)


def gaussian_blur(images: Varied, sigma: PerImage) -> Varied:
    """Blur with a standard deviation of `sigma` px, by three box blurs along each axis; the edge is repeated.

    Source: Gwosdek et al. 2011, "Theoretical foundations of Gaussian convolution by extended box filtering", section 2,
    as in Pillow. Each pass is rounded as there; without rounding, a blur of 0.1 px would differ by three levels.
    """
    radius = _box_radius(sigma)
    blurred = images
    for _ in range(2):  # along rows, then along columns
        for _ in range(BLUR_PASSES):
            blurred = _box_blur(blurred, radius)
        blurred = blurred.transpose(2, 3)
    return blurred.contiguous()


def _box_radius(sigma: PerImage) -> PerImage:
    """Return the radius whose repeated box blur has the Gaussian's variance; its fraction weights the outer pixels."""
    variance = sigma.double() ** 2 / BLUR_PASSES
    whole = torch.floor(((12 * variance + 1).sqrt() - 1) / 2)
    fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return (whole + fraction).to(sigma.dtype)


def _box_blur(images: Varied, radius: PerImage) -> Varied:
    """Blur along rows once: equal weights up to `radius` px away, and a fraction of that for the next pixel."""
    reach = math.floor(float(radius.max())) + 1
    padded = F.pad(images, (reach, reach, 0, 0), mode="replicate")
    width = images.shape[-1]
    center = _per_image(1 / (2 * radius + 1), images)
    blurred = images * center
    for distance in range(1, reach + 1):
        weight = center * _per_image((radius - distance + 1).clamp(0, 1), images)
        left, right = padded[..., reach - distance :], padded[..., reach + distance :]
        blurred = blurred + weight * (left[..., :width] + right[..., :width])
    return _rounded(blurred)


def _luma(images: Varied) -> Tensor:
    """Return the brightness of each pixel, `[batch, 1, height, width]`, not rounded; channels without color stay."""
    if images.shape[1] != 3:
        return images
    weights = to_device(torch.tensor(LUMA_WEIGHTS, dtype=images.dtype), images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _rounded(images: Tensor) -> Tensor:
    """Round to whole numbers, halves up, like Pillow."""
    return torch.floor(images + 0.5)


def _blend(other: Tensor, images: Varied, factor: PerImage) -> Varied:
    """Interpolate from `other` (factor 0) to the images (factor 1), and beyond; clip to 0..255."""
    return (other + _per_image(factor, images) * (images - other)).clamp(0, 255)


def _per_image(numbers: PerImage, images: Varied) -> Tensor:
    """Move one number per image to the images' device, in a shape that broadcasts."""
    return to_device(numbers, images.device).view(-1, 1, 1, 1)
