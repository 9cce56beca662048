"""Images, a strength for each -> images in other colours: the operations of augmentation policies, for whole batches.

On whole grey levels each operation equals Pillow's on every single image within one grey level: Pillow cuts fractions
off, we keep them. Gray images (one channel) are treated as Pillow treats mode `L`.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vitreous.tensors import PerImage, Varied
from vitreous.transfer import to_device

_LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""ITU-R 601-2, with the digits that Pillow keeps."""
_SMOOTH = ((1 / 13, 1 / 13, 1 / 13), (1 / 13, 5 / 13, 1 / 13), (1 / 13, 1 / 13, 1 / 13))
_BLUR_PASSES = 3


def brightness(images: Varied, factor: PerImage) -> Varied:
    """Towards black below a factor of 1, away from it above."""
    return _blend(torch.zeros_like(images), images, factor)


def contrast(images: Varied, factor: PerImage) -> Varied:
    """Towards a plain image of the mean grey below a factor of 1, away from it above."""
    mean = torch.floor(_rounded(_luma(images)).mean(dim=(1, 2, 3), keepdim=True) + 0.5)
    return _blend(mean, images, factor)


def saturation(images: Varied, factor: PerImage) -> Varied:
    """Towards the gray image below a factor of 1, away from it above; gray images stay as they are."""
    return images if images.shape[1] == 1 else _blend(_rounded(_luma(images)), images, factor)


def sharpness(images: Varied, factor: PerImage) -> Varied:
    """Towards an image smoothed over 3×3 px below a factor of 1, away from it above; the outermost pixels stay."""
    if min(images.shape[-2:]) < 3:
        return images
    kernel = to_device(torch.tensor(_SMOOTH, dtype=images.dtype), images.device).view(1, 1, 3, 3)
    inner = rearrange(F.conv2d(rearrange(images, "b c h w -> (b c) 1 h w"), kernel),
                      "(b c) 1 h w -> b c h w", c=images.shape[1])  # fmt: skip
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = _rounded(inner)
    return _blend(smooth, images, factor)


def posterize(images: Varied, bits: PerImage) -> Varied:
    """Keep the highest `bits` of 8 bits, whole numbers from 1 to 8."""
    width = _spread(2.0 ** (8 - bits), images)
    return torch.floor(images / width) * width


def solarize(images: Varied, threshold: PerImage) -> Varied:
    """Invert what is at least as bright as `threshold`; 256 changes nothing."""
    return torch.where(images < _spread(threshold, images), images, invert(images))


def autocontrast(images: Varied) -> Varied:
    """Stretch each channel so that its darkest pixel is black and its brightest white; a plain channel stays."""
    darkest, brightest = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    reach = brightest - darkest
    return torch.where(reach > 0, (images - darkest) * (255 / reach.clamp(min=1e-6)), images).clamp(0, 255)


def equalize(images: Varied) -> Varied:
    """Make all grey levels of a channel about equally frequent; the result has whole grey levels."""
    levels = rearrange(_rounded(images).clamp(0, 255).long(), "b c h w -> (b c) (h w)")
    counts = torch.zeros(len(levels), 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    step = (levels.shape[1] - counts.gather(1, levels.amax(dim=1, keepdim=True))) // 255
    darker = counts.cumsum(dim=1) - counts
    table = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    # Few pixels, or nearly all of the brightest level: Pillow leaves such a channel as it is.
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    found = table.gather(1, levels).to(images.dtype)
    return found.view_as(images)


def invert(images: Varied) -> Varied:
    """Black becomes white."""
    return 255 - images


def grayscale(images: Varied) -> Varied:
    """The colour leaves, the number of channels stays."""
    return _luma(images).expand_as(images)


def gaussian_blur(images: Varied, sigma: PerImage) -> Varied:
    """Blur with a standard deviation of `sigma` px, by three box blurs along each axis; the edge is repeated.

    Source: Gwosdek et al. 2011, "Theoretical foundations of Gaussian convolution by extended box filtering", section 2,
    as in Pillow, rounding after each pass included: without it a blur of 0.1 px differs by three grey levels.
    """
    radius = _box_radius(sigma)
    blurred = images
    for _ in range(_BLUR_PASSES):
        blurred = _box_blur(blurred, radius)
    blurred = blurred.transpose(2, 3)
    for _ in range(_BLUR_PASSES):
        blurred = _box_blur(blurred, radius)
    return blurred.transpose(2, 3).contiguous()


def _box_radius(sigma: PerImage) -> PerImage:
    """The radius whose box blur, repeated, has the variance of the Gaussian; its fraction is the outermost weight."""
    variance = sigma.double() ** 2 / _BLUR_PASSES
    whole = torch.floor(((12 * variance + 1).sqrt() - 1) / 2)
    fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return (whole + fraction).to(sigma.dtype)


def _box_blur(images: Varied, radius: PerImage) -> Varied:
    """One pass along rows: whole weights up to `radius` px away, a part of one beyond."""
    reach = math.floor(float(radius.max())) + 1
    padded = F.pad(images, (reach, reach, 0, 0), mode="replicate")
    width = images.shape[-1]
    centre = _spread(1 / (2 * radius + 1), images)
    blurred = images * centre
    for distance in range(1, reach + 1):
        weight = centre * _spread((radius - distance + 1).clamp(0, 1), images)
        left, right = padded[..., reach - distance :], padded[..., reach + distance :]
        blurred = blurred + weight * (left[..., :width] + right[..., :width])
    return _rounded(blurred)


def _luma(images: Varied) -> Tensor:
    """How bright each pixel is, `[batch, 1, height, width]`, not rounded."""
    if images.shape[1] == 1:
        return images
    weights = to_device(torch.tensor(_LUMA, dtype=images.dtype), images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _rounded(images: Tensor) -> Tensor:
    """To whole grey levels, halves up, as Pillow does."""
    return torch.floor(images + 0.5)


def _blend(other: Tensor, images: Varied, factor: PerImage) -> Varied:
    return (other + _spread(factor, images) * (images - other)).clamp(0, 255)


def _spread(numbers: PerImage, images: Varied) -> Tensor:
    """One number an image, ready to be multiplied; numbers may still be on the CPU."""
    return to_device(numbers, images.device).view(-1, 1, 1, 1)
