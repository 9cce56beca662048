import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vitreous.data.augmentation.warp import ANTIALIAS_FROM, warp

NOISE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 96, 132), dtype=np.uint8)).float()
ROWS, COLUMNS = np.mgrid[0:96, 0:132]
SMOOTH = torch.from_numpy(127 + 100 * np.sin(COLUMNS / 7) * np.cos(ROWS / 5)).float()[None, None]


def box_matrix(box: tuple[float, float, float, float], size: tuple[int, int]) -> Tensor:
    """Return the matrix that cuts (left, top, right, bottom), in px, out of an image of this (height, width)."""
    left, top, right, bottom = box
    height, width = size
    return torch.tensor([[[(right - left) / width, 0, (left + right) / width - 1],
                          [0, (bottom - top) / height, (top + bottom) / height - 1]]])  # fmt: skip


def differences(images: Tensor, size: tuple[int, int], box: tuple[float, float, float, float]) -> Tensor:
    """Return the differences from Pillow's antialiased bilinear resize of a box, without the outermost pixels."""
    result = warp(images, box_matrix(box, (images.shape[-2], images.shape[-1])), size=size)
    assert result.shape == (*images.shape[:2], *size)
    expected = [np.array(Image.fromarray(plane.numpy()).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))
                for plane in images[0]]  # fmt: skip
    return (result[0] - torch.from_numpy(np.stack(expected)))[:, 1:-1, 1:-1]


@pytest.mark.parametrize("scale", [1.3, 1.7, 2.0, 2.5, 3.0, 4.0, 5.0])
def test_reduced_crop_is_close_to_pillows_antialiased_one(scale: float) -> None:
    box = (7.0, 3.5, 7.0 + 24 * scale, 3.5 + 17 * scale)
    assert float(differences(SMOOTH, (17, 24), box).abs().max()) < 3.5
    # White noise is the worst case: its standard deviation is 74, and plain bilinear sampling differs by 15 to 65.
    assert float(differences(NOISE, (17, 24), box).square().mean().sqrt()) < 8


def test_reduction_by_different_factors_is_antialiased_along_each_axis() -> None:
    box = (2.0, 6.0, 2.0 + 24 * 4.5, 6.0 + 17 * 1.6)
    assert float(differences(SMOOTH, (17, 24), box).abs().max()) < 3.5
    assert float(differences(NOISE, (17, 24), box).square().mean().sqrt()) < 8


def test_halved_image_is_close_to_pytorchs_antialiased_one() -> None:
    result = warp(NOISE, torch.eye(2, 3)[None], size=(48, 66))
    expected = F.interpolate(NOISE, (48, 66), mode="bilinear", antialias=True)
    torch.testing.assert_close(result[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1.5, rtol=0)


@pytest.mark.parametrize("scale", [0.4, 1.0, ANTIALIAS_FROM])
def test_enlarged_or_hardly_reduced_crop_is_plain_bilinear(scale: float) -> None:
    matrix = box_matrix((4.0, 5.0, 4.0 + 132 * scale / 2, 5.0 + 96 * scale / 2), (96, 132))
    result = warp(NOISE, matrix, size=(48, 66))
    grid = F.affine_grid(matrix, [1, 3, 48, 66], align_corners=False)
    expected = F.grid_sample(NOISE, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(result, expected, atol=5e-3, rtol=0)


def test_warp_of_an_image_does_not_depend_on_the_batch() -> None:
    scales = (0.5, 1.9, 3.2, 1.0, 1.9)
    matrices = torch.cat([box_matrix((3, 2, 3 + 26 * s, 2 + 19 * s), (96, 132)) for s in scales])
    images = torch.cat([NOISE.roll(i, dims=1) for i in range(len(scales))])
    together = warp(images, matrices, size=(19, 26))
    for i in range(len(scales)):
        single = warp(images[i : i + 1], matrices[i : i + 1], size=(19, 26))
        torch.testing.assert_close(together[i], single[0], atol=1e-3, rtol=0)


def test_constant_image_stays_constant_when_it_shrinks() -> None:
    plain = torch.full((1, 3, 20, 31), 77.0)
    torch.testing.assert_close(warp(plain, 30 * torch.eye(2, 3)[None]), plain, atol=1e-2, rtol=0)
