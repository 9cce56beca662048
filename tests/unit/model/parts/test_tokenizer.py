import pytest
import torch
from einops import rearrange
from torch.nn import functional as F

from vitreous.errors import ConfigError, ShapeError
from vitreous.model.parts.stem import CompactStem, ConvStem
from vitreous.model.parts.tokenizer import (
    FlexibleTokenizer,
    ShiftedTokenizer,
    Tokenizer,
    patchify,
    resize_projection,
)


def test_tokens_equal_a_convolution_whose_stride_is_its_kernel_size():
    torch.manual_seed(0)
    tokenizer = Tokenizer(patch_size=4, in_chans=3, embed_dim=10).double()
    images = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    kernel = tokenizer.proj.weight.view(10, 3, 4, 4)
    convolved = F.conv2d(images, kernel, tokenizer.proj.bias, stride=4)
    expected = torch.stack([convolved[:, :, row, column] for row in range(3) for column in range(5)], dim=1)
    torch.testing.assert_close(tokenizer(images), expected, rtol=0, atol=1e-12)


def test_patchify_reads_patches_row_by_row_and_values_channel_first():
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6).float()
    patches = patchify(images, 2)
    expected = torch.empty(2, 6, 12)
    for image in range(2):
        for row in range(2):
            for column in range(3):
                patch = images[image, :, row * 2 : row * 2 + 2, column * 2 : column * 2 + 2]
                expected[image, row * 3 + column] = patch.flatten()
    torch.testing.assert_close(patches, expected, rtol=0, atol=0)


def test_patchify_refuses_images_that_patches_do_not_tile():
    with pytest.raises(ShapeError) as caught:
        patchify(torch.zeros(2, 3, 12, 22), 4)
    assert str(caught.value) == "images 12x22 px: not tiled by 4 px patches; resize or pad them"


def test_tokenizer_refuses_other_channels():
    with pytest.raises(ShapeError) as caught:
        Tokenizer(patch_size=4, in_chans=3, embed_dim=8)(torch.zeros(2, 1, 12, 20))
    assert str(caught.value) == "images of 1 channel: the model takes 3; convert the images"


@pytest.mark.parametrize("kind", [Tokenizer, ShiftedTokenizer, ConvStem, CompactStem])
def test_one_image_without_a_batch_is_refused(kind):
    with pytest.raises(ShapeError) as caught:
        kind(patch_size=4, in_chans=3, embed_dim=8)(torch.zeros(3, 12, 20))
    assert str(caught.value) == "images of shape 3x12x20: must be a batch of images; give one image as images[None]"


def test_tokenizer_refuses_transposed_images():
    tokenizer = Tokenizer(patch_size=4, in_chans=3, embed_dim=8, img_size=(12, 20))
    with pytest.raises(ShapeError) as caught:
        tokenizer(torch.zeros(2, 3, 20, 12))
    assert str(caught.value) == (
        "images 20x12 px (height x width): the model takes 12x20 px; resize the images, or the model with resize_model"
    )


def test_tokenizer_without_a_size_accepts_every_size_that_patches_tile():
    tokenizer = Tokenizer(patch_size=4, in_chans=3, embed_dim=8)
    assert tokenizer(torch.zeros(2, 3, 12, 20)).shape == (2, 15, 8)
    assert tokenizer(torch.zeros(2, 3, 8, 4)).shape == (2, 2, 8)


def shifted(images, down, right):
    """Return the images moved down and to the right (negative numbers: up and to the left), padded with zeros."""
    height, width = images.shape[-2:]
    moved = torch.zeros_like(images)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                moved[:, :, row, column] = images[:, :, row - down, column - right]
    return moved


@pytest.mark.parametrize("patch_size", [4, 2])
@torch.no_grad()
def test_shifted_tokenizer_sees_the_image_and_four_diagonal_copies(patch_size):
    torch.manual_seed(0)
    tokenizer = ShiftedTokenizer(patch_size=patch_size, in_chans=3, embed_dim=10).double()
    for parameter in tokenizer.parameters():
        parameter.normal_()
    images, half = torch.randn(2, 3, 8, 12, dtype=torch.float64), patch_size // 2
    diagonals = [(half, half), (half, -half), (-half, half), (-half, -half)]
    wide = torch.cat([images, *(shifted(images, down, right) for down, right in diagonals)], dim=1)
    expected = []
    for row in range(0, 8, patch_size):
        for column in range(0, 12, patch_size):
            values = wide[:, :, row : row + patch_size, column : column + patch_size].flatten(1)
            centered = values - values.mean(1, keepdim=True)
            normalized = centered / ((centered**2).mean(1, keepdim=True) + tokenizer.norm.eps).sqrt()
            normalized = normalized * tokenizer.norm.weight + tokenizer.norm.bias
            expected.append(normalized @ tokenizer.proj.weight.T + tokenizer.proj.bias)
    torch.testing.assert_close(tokenizer(images), torch.stack(expected, 1), rtol=0, atol=1e-11)


def test_shifted_tokenizer_sees_half_a_patch_beyond_each_patch():
    tokenizer = ShiftedTokenizer(patch_size=4, in_chans=1, embed_dim=10)
    images = torch.randn(1, 1, 20, 12, requires_grad=True)
    tokenizer(images)[0, 7].pow(2).sum().backward()  # the patch with pixel rows 8 to 11 and pixel columns 4 to 7
    seen = torch.zeros(20, 12, dtype=torch.bool)
    seen[6:14, 2:10] = True
    torch.testing.assert_close(images.grad[0, 0] != 0, seen)


def test_shifted_tokenizer_refuses_the_channels_of_shifted_images():
    with pytest.raises(ShapeError) as caught:
        ShiftedTokenizer(patch_size=4, in_chans=3, embed_dim=8)(torch.zeros(2, 15, 12, 20))
    assert str(caught.value) == "images of 15 channels: the model takes 3; convert the images"


def upsampled(values, new):
    """Resize patches `[..., old, old]` to `[..., new, new]` by bilinear interpolation between pixel centers."""
    old = values.shape[-1]
    matrix = torch.zeros(new, old, dtype=values.dtype)
    for i in range(new):
        place = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
        low = min(int(place), old - 2)
        matrix[i, low], matrix[i, low + 1] = 1 - (place - low), place - low
    return matrix @ values @ matrix.T


@pytest.mark.parametrize("new", [4, 5, 7, 8])
def test_enlarged_patch_keeps_its_token(new):
    torch.manual_seed(0)
    weight, patches = torch.randn(10, 3 * 16, dtype=torch.float64), torch.randn(6, 3, 4, 4, dtype=torch.float64)
    resized = resize_projection(weight, 3, new)
    assert resized.shape == (10, 3 * new**2)
    torch.testing.assert_close(
        upsampled(patches, new).flatten(1) @ resized.T, patches.flatten(1) @ weight.T, rtol=0, atol=1e-9
    )


def test_smaller_projection_is_the_least_squares_solution():
    torch.manual_seed(0)
    weight = torch.randn(10, 2 * 36, dtype=torch.float64)
    basis = torch.eye(36, dtype=torch.float64).reshape(36, 1, 6, 6)
    shrink = F.interpolate(basis, size=(4, 4), mode="bilinear", antialias=True).flatten(1)  # [36, 16], patches @ shrink
    best = torch.linalg.lstsq(shrink, weight.reshape(20, 36).T).solution.T.reshape(10, 32)
    torch.testing.assert_close(resize_projection(weight, 2, 4), best, rtol=0, atol=1e-9)


def test_projection_of_the_same_size_is_returned_unchanged():
    weight = torch.randn(10, 48)
    assert resize_projection(weight, 3, 4) is weight
    assert resize_projection(weight.bfloat16(), 3, 6).dtype == torch.bfloat16


def make_flexible(patch_sizes=(2, 4, 5, 10)):
    torch.manual_seed(0)
    return FlexibleTokenizer(Tokenizer(patch_size=4, in_chans=3, embed_dim=10).double(), patch_sizes)


def test_flexible_tokenizer_draws_every_size_that_tiles_the_images():
    tokenizer, images = make_flexible(), torch.randn(2, 3, 20, 40, dtype=torch.float64)
    grids = set()
    for _ in range(40):
        tokens = tokenizer(images)
        rows, columns = tokenizer.grid_size(images)
        assert tokens.shape == (2, rows * columns, 10)
        grids.add((rows, columns))
    assert grids == {(10, 20), (5, 10), (4, 8), (2, 4)}
    for _ in range(10):
        assert tokenizer(images[:, :, :16, :12]).shape[1] in (48, 12)  # patches of 5 and 10 px do not tile these


def test_flexible_tokenizer_uses_its_base_patch_size_in_evaluation():
    tokenizer, images = make_flexible((2, 5)), torch.randn(2, 3, 20, 40, dtype=torch.float64)
    tokenizer(images)
    tokenizer.eval()
    plain = patchify(images, 4) @ tokenizer.proj.weight.T + tokenizer.proj.bias
    torch.testing.assert_close(tokenizer(images), plain, rtol=0, atol=1e-12)
    assert tokenizer.grid_size(images) == (5, 10)


def test_flexible_tokenizer_accepts_any_patch_size_in_evaluation():
    tokenizer, images = make_flexible().eval(), torch.randn(2, 3, 20, 40, dtype=torch.float64)
    tokenizer.patch_size = 8
    patches = rearrange(images, "b c (h p) (w q) -> b (h w) c p q", p=4, q=4)
    enlarged = rearrange(upsampled(patches, 8), "b (h w) c p q -> b c (h p) (w q)", h=5)
    tokens = tokenizer(enlarged)
    assert tokenizer.grid_size(enlarged) == (5, 10)
    tokenizer.patch_size = 4
    torch.testing.assert_close(tokens, tokenizer(images), rtol=0, atol=1e-9)


@pytest.mark.parametrize("side", [2, 5])
def test_gradients_reach_the_base_projection_through_the_resize(side):
    tokenizer, images = make_flexible((side,)), torch.randn(2, 3, 10, 20, dtype=torch.float64)
    direction = torch.randn_like(tokenizer(images))
    (tokenizer(images) * direction).sum().backward()
    step = torch.zeros_like(tokenizer.proj.weight)
    step[3, 7] = 1e-6
    with torch.no_grad():
        up = F.linear(patchify(images, side), resize_projection(tokenizer.proj.weight + step, 3, side))
        down = F.linear(patchify(images, side), resize_projection(tokenizer.proj.weight - step, 3, side))
    slope = ((up - down) * direction).sum() / 2e-6
    torch.testing.assert_close(tokenizer.proj.weight.grad[3, 7], slope, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(tokenizer.proj.bias.grad, direction.sum((0, 1)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("patch_sizes", [(), (8, 0)])
def test_flexible_tokenizer_needs_positive_patch_sizes(patch_sizes):
    with pytest.raises(ConfigError) as caught:
        make_flexible(patch_sizes)
    assert str(caught.value) == (f"patch_sizes={patch_sizes}: must be sides in px, at least one; use e.g. (8, 12, 16)")


def test_patch_size_first_used_in_inference_mode_can_be_trained_later():
    weight = torch.randn(7, 3 * 5**2, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        expected = resize_projection(weight, 3, 9)
    again = resize_projection(weight, 3, 9)
    again.sum().backward()
    torch.testing.assert_close(again.detach(), expected, rtol=0, atol=0)
