import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.model.parts.stem import CompactStem, ConvStem, compact_widths, stem_widths


def randomize(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double()


def convolve(image, conv, stride):
    """Convolve one image `[channels, height, width]`, zero-padded, with a 3x3 kernel, one window at a time."""
    chans, height, width = image.shape
    framed = torch.zeros(chans, height + 2, width + 2, dtype=image.dtype)
    framed[:, 1:-1, 1:-1] = image
    rows, columns = range(0, height, stride), range(0, width, stride)
    windows = [[(framed[:, r : r + 3, c : c + 3] * conv.weight).sum((1, 2, 3)) for c in columns] for r in rows]
    convolved = torch.stack([torch.stack(line, -1) for line in windows], 1)
    return convolved if conv.bias is None else convolved + conv.bias[:, None, None]


def normalize(image, norm):
    centered = image - image.mean()
    return centered / ((centered**2).mean() + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]


def row_by_row(image):
    return torch.stack([image[:, r, c] for r in range(image.shape[1]) for c in range(image.shape[2])])


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_conv_stem_is_strided_convolutions_with_norms_then_a_projection(bias):
    stem = randomize(ConvStem(patch_size=4, in_chans=3, embed_dim=20, bias=bias))
    images, expected = torch.randn(2, 3, 12, 20, dtype=torch.float64), []
    for image in images:
        for conv, norm in ((stem.layers[0], stem.layers[1]), (stem.layers[3], stem.layers[4])):
            image = normalize(convolve(image, conv, 2), norm).clamp(min=0)
        projected = torch.einsum("oc,chw->ohw", stem.proj.weight[:, :, 0, 0], image)
        expected.append(row_by_row(projected if stem.proj.bias is None else projected + stem.proj.bias[:, None, None]))
    torch.testing.assert_close(stem(images), torch.stack(expected), rtol=0, atol=1e-10)
    assert (stem.proj.bias is not None) is bias


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_compact_stem_is_convolutions_with_relu_and_overlapping_max_pooling(bias):
    stem = randomize(CompactStem(patch_size=4, in_chans=3, embed_dim=20, bias=bias))
    images, expected = torch.randn(2, 3, 8, 12, dtype=torch.float64), []
    for image in images:
        for conv in (stem.layers[0], stem.layers[3]):
            image = convolve(image, conv, 1).clamp(min=0)
            rows, columns = range(0, image.shape[1], 2), range(0, image.shape[2], 2)
            windows = [
                [image[:, max(0, r - 1) : r + 2, max(0, c - 1) : c + 2].amax((1, 2)) for c in columns] for r in rows
            ]
            image = torch.stack([torch.stack(line, -1) for line in windows], 1)
        expected.append(row_by_row(image))
    torch.testing.assert_close(stem(images), torch.stack(expected), rtol=0, atol=1e-10)
    assert (stem.layers[0].bias is not None) is bias


@pytest.mark.parametrize("kind", [ConvStem, CompactStem])
@pytest.mark.parametrize("patch_size", [2, 4, 8, 16])
def test_stem_gives_one_token_per_square_of_patch_size(kind, patch_size):
    stem, images = kind(patch_size=patch_size, in_chans=3, embed_dim=20), torch.randn(2, 3, 32, 48)
    rows, columns = stem.grid_size(images)
    assert (rows, columns) == (32 // patch_size, 48 // patch_size)
    assert stem(images).shape == (2, rows * columns, 20)


def test_stem_widths_double_and_compact_widths_are_64_before_the_last():
    assert stem_widths(16, 384) == [24, 48, 96, 192]
    assert stem_widths(8, 20) == [8, 8, 10]
    assert stem_widths(8, 128, ratio=1.0) == [32, 64, 128]
    assert compact_widths(8, 256) == [64, 64, 256]
    assert compact_widths(2, 256) == [256]


def test_tokens_of_an_image_do_not_depend_on_its_batch():
    stem, images = randomize(ConvStem(patch_size=4, in_chans=3, embed_dim=20)), torch.randn(2, 3, 12, 20).double()
    torch.testing.assert_close(stem(images)[1:], stem(images[1:]), rtol=0, atol=1e-12)
    assert not dict(stem.named_buffers())


@pytest.mark.parametrize("kind", [ConvStem, CompactStem])
def test_stem_refuses_other_sizes_and_channels(kind):
    stem, fixed = (kind(patch_size=4, in_chans=3, embed_dim=20, img_size=size) for size in (None, (12, 20)))
    with pytest.raises(ShapeError) as caught:
        stem(torch.zeros(2, 3, 12, 22))
    assert str(caught.value) == "images 12x22 px: not tiled by 4 px patches; resize or pad them"
    with pytest.raises(ShapeError, match="images of 1 channel: the model takes 3"):
        stem(torch.zeros(2, 1, 12, 20))
    with pytest.raises(ShapeError, match=r"images 20x12 px \(height x width\): the model takes 12x20 px"):
        fixed(torch.zeros(2, 3, 20, 12))
