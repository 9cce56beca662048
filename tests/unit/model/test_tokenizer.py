import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from vitreous.errors import ShapeError
from vitreous.model.tokenizer import Tokenizer, patchify, unpatchify


def test_tokens_equal_a_convolution_whose_stride_is_its_kernel():
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


@given(
    batch=st.integers(1, 3),
    chans=st.integers(1, 4),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    p=st.integers(1, 5),
)
def test_unpatchify_inverts_patchify(batch, chans, rows, columns, p):
    images = torch.rand(batch, chans, rows * p, columns * p)
    back = unpatchify(patchify(images, p), patch_size=p, grid_size=(rows, columns))
    torch.testing.assert_close(back, images, rtol=0, atol=0)


def test_patchify_refuses_images_that_patches_do_not_tile():
    with pytest.raises(ShapeError) as caught:
        patchify(torch.zeros(2, 3, 12, 22), 4)
    assert str(caught.value) == "images 12x22 px: not tiled by 4 px patches; resize or pad them"


def test_unpatchify_refuses_a_grid_that_the_patches_do_not_fill():
    with pytest.raises(ShapeError) as caught:
        unpatchify(torch.zeros(2, 7, 12), patch_size=2, grid_size=(2, 3))
    assert str(caught.value) == "7 patches: do not fill a grid of 2x3; give the grid they came from"


def test_unpatchify_refuses_values_that_are_not_whole_channels():
    with pytest.raises(ShapeError) as caught:
        unpatchify(torch.zeros(2, 6, 13), patch_size=2, grid_size=(2, 3))
    assert str(caught.value).startswith("patches of 13 values: not whole channels of 2x2 px")


def test_tokenizer_refuses_other_channels():
    with pytest.raises(ShapeError) as caught:
        Tokenizer(patch_size=4, in_chans=3, embed_dim=8)(torch.zeros(2, 1, 12, 20))
    assert str(caught.value) == "images of 1 channels: the model takes 3; convert them"


def test_tokenizer_refuses_a_transposed_image_with_the_same_number_of_patches():
    tokenizer = Tokenizer(patch_size=4, in_chans=3, embed_dim=8, img_size=(12, 20))
    with pytest.raises(ShapeError) as caught:
        tokenizer(torch.zeros(2, 3, 20, 12))
    assert str(caught.value) == (
        "images 20x12 px (height x width): the model takes 12x20 px; resize the images, or the model with resize_model"
    )


def test_tokenizer_without_a_size_takes_every_size_that_patches_tile():
    tokenizer = Tokenizer(patch_size=4, in_chans=3, embed_dim=8)
    assert tokenizer(torch.zeros(2, 3, 12, 20)).shape == (2, 15, 8)
    assert tokenizer(torch.zeros(2, 3, 8, 4)).shape == (2, 2, 8)
