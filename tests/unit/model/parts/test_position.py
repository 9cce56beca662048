import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from vitreous.errors import ShapeError
from vitreous.model.parts.embedding import LearnedPosition, resize_grid
from vitreous.model.parts.fixed_position import NoPosition, SinCosPosition, SinusoidalPosition, sincos2d, sinusoid


def notebook_formula(num_tokens, embed_dim):
    table = torch.empty(num_tokens, embed_dim, dtype=torch.float64)
    for p in range(num_tokens):
        for column in range(embed_dim):
            i = column // 2
            angle = p / 10000 ** (2 * i / embed_dim)
            table[p, column] = math.sin(angle) if column % 2 == 0 else math.cos(angle)
    return table


@pytest.mark.parametrize("embed_dim", [10, 7])
def test_sinusoid_is_the_notebooks_formula_element_by_element(embed_dim):
    torch.testing.assert_close(sinusoid(15, embed_dim), notebook_formula(15, embed_dim), rtol=0, atol=1e-12)


def test_sinusoidal_position_adds_the_formula_in_float64():
    position = SinusoidalPosition(grid_size=(3, 5), embed_dim=10).double()
    tokens = torch.randn(2, 15, 10, dtype=torch.float64)
    torch.testing.assert_close(position(tokens), tokens + notebook_formula(15, 10), rtol=0, atol=1e-12)


def test_sinusoidal_position_has_nothing_to_save():
    assert SinusoidalPosition(grid_size=(3, 5), embed_dim=10).state_dict() == {}


def test_sinusoidal_position_survives_the_meta_device():
    with torch.device("meta"):
        position = SinusoidalPosition(grid_size=(3, 5), embed_dim=10)
    position.to_empty(device="cpu")
    torch.testing.assert_close(position.table, notebook_formula(15, 10).float())


def test_learned_position_adds_its_grid_row_by_row():
    position = LearnedPosition(grid_size=(3, 5), embed_dim=10)
    torch.nn.init.normal_(position.grid)
    tokens = torch.randn(2, 15, 10)
    expected = tokens.clone()
    for row in range(3):
        for column in range(5):
            expected[:, row * 5 + column] += position.grid[row, column]
    torch.testing.assert_close(position(tokens), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [LearnedPosition, SinusoidalPosition, SinCosPosition])
def test_position_refuses_another_number_of_tokens(kind):
    with pytest.raises(ShapeError) as caught:
        kind(grid_size=(3, 5), embed_dim=12)(torch.zeros(2, 16, 12))
    assert str(caught.value) == "16 tokens: do not fill the position grid of 3x5; resize images or grid"


def test_resize_to_the_same_grid_changes_no_bit():
    grid = torch.randn(3, 5, 4)
    torch.testing.assert_close(resize_grid(grid, (3, 5)), grid, rtol=0, atol=0)


@pytest.mark.parametrize("grid_size", [(3, 4), (12, 9), (5, 18)])
def test_resize_is_pillows_bicubic_with_antialias(grid_size):
    grid = torch.randn(8, 18, 3)
    rows, columns = grid_size
    expected = [
        np.asarray(Image.fromarray(channel.numpy()).resize((columns, rows), Image.Resampling.BICUBIC))
        for channel in grid.unbind(-1)
    ]
    torch.testing.assert_close(
        resize_grid(grid, grid_size), torch.from_numpy(np.stack(expected, -1)), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_resize_keeps_the_dtype_and_a_constant(dtype):
    resized = resize_grid(torch.full((3, 5, 2), 0.75, dtype=dtype), (7, 4))
    torch.testing.assert_close(resized, torch.full((7, 4, 2), 0.75, dtype=dtype))


def mae_table(rows, columns, embed_dim):
    """MAE: half the width for the column, half for the row; in each, sines then cosines of x / 10000^(i / (d/4))."""
    omega = 1 / 10000 ** (np.arange(embed_dim // 4) / (embed_dim / 4))
    table = np.empty((rows * columns, embed_dim))
    for row in range(rows):
        for column in range(columns):
            halves = [np.concatenate([np.sin(place * omega), np.cos(place * omega)]) for place in (column, row)]
            table[row * columns + column] = np.concatenate(halves)
    return torch.from_numpy(table)


def big_vision_table(rows, columns, embed_dim):
    """big_vision: sin x, cos x, sin y, cos y, with wavelengths from 1 to 10000 inclusive."""
    y, x = np.mgrid[:rows, :columns]
    omega = 1 / 10000 ** np.linspace(0, 1, embed_dim // 4)
    y, x = np.outer(y.ravel(), omega), np.outer(x.ravel(), omega)
    return torch.from_numpy(np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1))


SINCOS = [("mae", mae_table), ("big_vision", big_vision_table)]


@pytest.mark.parametrize(("variant", "table"), SINCOS)
@pytest.mark.parametrize("embed_dim", [20, 8])
def test_sincos2d_is_the_published_formula(variant, table, embed_dim):
    torch.testing.assert_close(sincos2d((3, 5), embed_dim, variant=variant), table(3, 5, embed_dim), rtol=0, atol=1e-12)


def test_big_visions_narrowest_table_has_one_wavelength_and_no_division_by_zero():
    torch.testing.assert_close(sincos2d((3, 5), 4, variant="big_vision"), mae_table(3, 5, 4), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("variant", "table"), SINCOS)
def test_sincos_position_adds_the_formula_for_its_own_and_for_other_grids(variant, table):
    position = SinCosPosition(grid_size=(3, 5), embed_dim=20, variant=variant).double()
    assert position.state_dict() == {}
    for grid_size in (None, (3, 5), (4, 2)):
        rows, columns = grid_size or (3, 5)
        tokens = torch.randn(2, rows * columns, 20, dtype=torch.float64)
        expected = tokens + table(rows, columns, 20)
        torch.testing.assert_close(position(tokens, grid_size), expected, rtol=0, atol=1e-12)


def test_sinusoidal_position_numbers_the_tokens_of_another_grid_row_by_row():
    position, tokens = SinusoidalPosition(grid_size=(3, 5), embed_dim=10).double(), torch.zeros(2, 8, 10).double()
    torch.testing.assert_close(position(tokens, (4, 2))[1], notebook_formula(8, 10), rtol=0, atol=1e-12)


def test_a_fixed_table_is_computed_anew_in_the_dtype_it_moves_to_and_after_the_meta_device():
    position = SinCosPosition(grid_size=(3, 5), embed_dim=20).bfloat16()
    assert position.table.dtype == torch.bfloat16
    torch.testing.assert_close(position.double().table, mae_table(3, 5, 20), rtol=0, atol=1e-12)
    position.to("meta").to_empty(device="cpu")
    torch.testing.assert_close(position.table, mae_table(3, 5, 20), rtol=0, atol=1e-12)


def test_no_position_is_no_position():
    tokens = torch.randn(2, 15, 10)
    assert NoPosition()(tokens, (3, 5)) is tokens


def cubic_weights(old, new, align_corners):
    """`[new, old]`: Keys' cubic with a = -0.75 between four neighbours, the border repeated; no antialias."""
    matrix, a = np.zeros((new, old)), -0.75
    for i in range(new):
        place = i * (old - 1) / (new - 1) if align_corners else (i + 0.5) * old / new - 0.5
        for neighbour in range(math.floor(place) - 1, math.floor(place) + 3):
            x = abs(place - neighbour)
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            weight = near if x <= 1 else a * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[i, min(max(neighbour, 0), old - 1)] += weight
    return matrix


SIZES = [(3, 4), (12, 9), (5, 18), (8, 11)]


@pytest.mark.parametrize("grid_size", SIZES)
@pytest.mark.parametrize(("interpolation", "align_corners"), [("huggingface", False), ("torchvision", True)])
def test_resize_by_plain_bicubic_is_its_formula(interpolation, align_corners, grid_size):
    grid = torch.randn(8, 18, 3, dtype=torch.float64)
    rows, columns = (cubic_weights(*sizes, align_corners) for sizes in zip((8, 18), grid_size, strict=True))
    expected = torch.from_numpy(np.einsum("ar,bc,rcd->abd", rows, columns, grid.numpy()))
    torch.testing.assert_close(resize_grid(grid, grid_size, interpolation), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("grid_size", [*SIZES, (16, 1)])
def test_googles_resize_is_scipys_zoom_of_order_one(grid_size):
    grid = torch.randn(8, 18, 3, dtype=torch.float64)
    expected = ndimage.zoom(grid.numpy(), (grid_size[0] / 8, grid_size[1] / 18, 1), order=1)
    torch.testing.assert_close(resize_grid(grid, grid_size, "google"), torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("interpolation", ["timm", "torchvision", "huggingface", "google"])
def test_no_interpolation_changes_a_bit_of_a_grid_that_is_right(interpolation):
    grid = torch.randn(3, 5, 4)
    assert resize_grid(grid, (3, 5), interpolation) is grid
    assert resize_grid(grid, (5, 3), interpolation).shape == (5, 3, 4)


@pytest.mark.parametrize("interpolation", ["timm", "google"])
def test_learned_position_comes_to_another_grid_by_its_own_interpolation_and_learns_there(interpolation):
    position = LearnedPosition(grid_size=(3, 5), embed_dim=10, interpolation=interpolation).double()
    torch.nn.init.normal_(position.grid)
    tokens = torch.randn(2, 28, 10, dtype=torch.float64)
    resized = resize_grid(position.grid, (4, 7), interpolation)
    expected = tokens + torch.stack([resized[row, column] for row in range(4) for column in range(7)])
    torch.testing.assert_close(position(tokens, (4, 7)), expected, rtol=0, atol=0)
    position(tokens, (4, 7)).sum().backward()
    torch.testing.assert_close(position.grid.grad.sum((0, 1)), torch.full((10,), 56.0).double(), rtol=0, atol=1e-9)
