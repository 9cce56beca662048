import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from vitreous.errors import ShapeError
from vitreous.model.parts.embedding import LearnedPosition, Prefix, resize_grid


def make_position(**arguments):
    position = LearnedPosition(grid_size=(3, 5), embed_dim=10, **arguments)
    torch.nn.init.normal_(position.grid)
    return position


def test_learned_position_adds_its_grid_row_by_row():
    position, tokens = make_position(), torch.randn(2, 15, 10)
    expected = tokens.clone()
    for row in range(3):
        for column in range(5):
            expected[:, row * 5 + column] += position.grid[row, column]
    torch.testing.assert_close(position(tokens), expected, rtol=0, atol=0)


def test_learned_position_refuses_another_number_of_tokens():
    with pytest.raises(ShapeError) as caught:
        make_position()(torch.zeros(2, 16, 10))
    assert str(caught.value) == "16 tokens: do not fill the position grid of 3x5; resize the images or the grid"


@pytest.mark.parametrize("interpolation", ["timm", "google"])
def test_learned_position_is_resized_to_another_grid_and_gets_gradients_through_it(interpolation):
    position = make_position(interpolation=interpolation).double()
    tokens = torch.randn(2, 28, 10, dtype=torch.float64)
    resized = resize_grid(position.grid, (4, 7), interpolation)
    expected = tokens + torch.stack([resized[row, column] for row in range(4) for column in range(7)])
    torch.testing.assert_close(position(tokens, (4, 7)), expected, rtol=0, atol=0)
    position(tokens, (4, 7)).sum().backward()
    torch.testing.assert_close(position.grid.grad.sum((0, 1)), torch.full((10,), 56.0).double(), rtol=0, atol=1e-9)


def test_learned_position_prints_its_sizes():
    assert repr(make_position()) == "LearnedPosition(3x5, embed_dim=10)"


@pytest.mark.parametrize("interpolation", ["timm", "torchvision", "huggingface", "google", "dinov2"])
def test_resize_to_the_same_size_returns_the_same_grid(interpolation):
    grid = torch.randn(3, 5, 4)
    assert resize_grid(grid, (3, 5), interpolation) is grid
    assert resize_grid(grid, (5, 3), interpolation).shape == (5, 3, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_resize_keeps_the_dtype_and_a_constant(dtype):
    resized = resize_grid(torch.full((3, 5, 2), 0.75, dtype=dtype), (7, 4))
    torch.testing.assert_close(resized, torch.full((7, 4, 2), 0.75, dtype=dtype))


@pytest.mark.parametrize("grid_size", [(3, 4), (12, 9), (5, 18)])
def test_resize_equals_pillows_antialiased_bicubic(grid_size):
    grid = torch.randn(8, 18, 3)
    rows, columns = grid_size
    expected = [
        np.asarray(Image.fromarray(channel.numpy()).resize((columns, rows), Image.Resampling.BICUBIC))
        for channel in grid.unbind(-1)
    ]
    torch.testing.assert_close(
        resize_grid(grid, grid_size), torch.from_numpy(np.stack(expected, -1)), rtol=0, atol=1e-5
    )


def cubic_weights(old, new, align_corners, offset):
    """Return `[new, old]`: Keys' cubic kernel with a = -0.75 over four neighbors, border repeated, no antialiasing."""
    matrix, a = np.zeros((new, old)), -0.75
    for i in range(new):
        place = i * (old - 1) / (new - 1) if align_corners else (i + 0.5) * old / (new + offset) - 0.5
        for neighbor in range(math.floor(place) - 1, math.floor(place) + 3):
            x = abs(place - neighbor)
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            weight = near if x <= 1 else a * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[i, min(max(neighbor, 0), old - 1)] += weight
    return matrix


SIZES = [(3, 4), (12, 9), (5, 18), (8, 11)]


@pytest.mark.parametrize("grid_size", SIZES)
@pytest.mark.parametrize(
    ("interpolation", "align_corners", "offset"),
    [("huggingface", False, 0), ("torchvision", True, 0), ("dinov2", False, 0.1)],
)
def test_resize_equals_the_bicubic_formula(interpolation, align_corners, offset, grid_size):
    grid = torch.randn(8, 18, 3, dtype=torch.float64)
    rows, columns = (cubic_weights(*sizes, align_corners, offset) for sizes in zip((8, 18), grid_size, strict=True))
    expected = torch.from_numpy(np.einsum("ar,bc,rcd->abd", rows, columns, grid.numpy()))
    torch.testing.assert_close(resize_grid(grid, grid_size, interpolation), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("old", [1, 7, 16, 32, 37])
def test_metas_scale_factor_gives_every_requested_size(old):
    grid = torch.zeros(old, 2, 1)
    sizes = [tuple(resize_grid(grid, (new, 3), "dinov2").shape[:2]) for new in range(1, 130)]
    assert sizes == [(new, 3) for new in range(1, 130)]


@pytest.mark.parametrize("grid_size", [*SIZES, (16, 1)])
def test_googles_resize_equals_scipys_linear_zoom(grid_size):
    grid = torch.randn(8, 18, 3, dtype=torch.float64)
    expected = ndimage.zoom(grid.numpy(), (grid_size[0] / 8, grid_size[1] / 18, 1), order=1)
    torch.testing.assert_close(resize_grid(grid, grid_size, "google"), torch.from_numpy(expected), rtol=0, atol=1e-12)


def make_prefix(**arguments):
    prefix = Prefix(embed_dim=10, **arguments)
    for parameter in prefix.parameters():
        torch.nn.init.normal_(parameter)
    return prefix


def test_class_token_comes_first_with_its_own_position():
    prefix, tokens = make_prefix(), torch.randn(2, 15, 10)
    sequence = prefix(tokens)
    first = (prefix.class_token + prefix.class_position).expand(2, 10)
    torch.testing.assert_close(sequence[:, 0], first, rtol=0, atol=0)
    torch.testing.assert_close(sequence[:, 1:], tokens, rtol=0, atol=0)


def test_class_token_without_a_position_has_one_parameter():
    prefix = make_prefix(position="none")
    assert list(prefix.state_dict()) == ["class_token"]
    torch.testing.assert_close(prefix(torch.zeros(2, 3, 10))[:, 0], prefix.class_token.expand(2, 10))


@pytest.mark.parametrize("position", ["all", "class", "none"])
def test_prefix_is_class_token_distillation_token_registers(position):
    prefix, tokens = make_prefix(distill_token=True, num_registers=3, position=position), torch.randn(2, 15, 10)
    zeros = torch.zeros(10)
    expected = torch.stack([
        prefix.class_token + (prefix.class_position if position != "none" else zeros),
        prefix.distill_token + (prefix.distill_position if position != "none" else zeros),
        *(prefix.registers + (prefix.register_position if position == "all" else zeros)),
    ])  # fmt: skip
    sequence = prefix(tokens)
    torch.testing.assert_close(sequence[:, :5], expected.expand(2, 5, 10), rtol=0, atol=0)
    torch.testing.assert_close(sequence[:, 5:], tokens, rtol=0, atol=0)


def test_registers_work_without_a_class_token():
    prefix = make_prefix(class_token=False, num_registers=2)
    assert {name: tuple(p.shape) for name, p in prefix.named_parameters()} == {"registers": (2, 10)}


def test_prefix_prints_its_tokens_and_their_sizes():
    prefix = make_prefix(num_registers=3, position="all")
    assert repr(prefix) == (
        "Prefix(class_token=(10,), class_position=(10,), registers=(3, 10), register_position=(3, 10))"
    )
