import math

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.errors import ShapeError
from vitreous.model.position import LearnedPosition, SinusoidalPosition, resize_grid, sinusoid


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


@pytest.mark.parametrize("kind", [LearnedPosition, SinusoidalPosition])
def test_position_refuses_another_number_of_tokens(kind):
    with pytest.raises(ShapeError) as caught:
        kind(grid_size=(3, 5), embed_dim=10)(torch.zeros(2, 16, 10))
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
