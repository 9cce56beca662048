import math

import numpy as np
import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.model.parts.fixed_position import NoPosition, SinCosPosition, SinusoidalPosition, sincos2d, sinusoid
from vitreous.model.parts.rotary import RotaryPosition


def notebook_formula(num_tokens, embed_dim):
    """Return the sinusoidal table of the original notebook, element by element."""
    table = torch.empty(num_tokens, embed_dim, dtype=torch.float64)
    for p in range(num_tokens):
        for column in range(embed_dim):
            i = column // 2
            angle = p / 10000 ** (2 * i / embed_dim)
            table[p, column] = math.sin(angle) if column % 2 == 0 else math.cos(angle)
    return table


@pytest.mark.parametrize("embed_dim", [10, 7])
def test_sinusoid_equals_the_notebooks_formula(embed_dim):
    torch.testing.assert_close(sinusoid(15, embed_dim), notebook_formula(15, embed_dim), rtol=0, atol=1e-12)


def test_sinusoidal_position_adds_the_formula_in_float64():
    position = SinusoidalPosition(grid_size=(3, 5), embed_dim=10).double()
    tokens = torch.randn(2, 15, 10, dtype=torch.float64)
    torch.testing.assert_close(position(tokens), tokens + notebook_formula(15, 10), rtol=0, atol=1e-12)


def test_sinusoidal_position_counts_the_tokens_of_another_grid_row_by_row():
    position, tokens = SinusoidalPosition(grid_size=(3, 5), embed_dim=10).double(), torch.zeros(2, 8, 10).double()
    torch.testing.assert_close(position(tokens, (4, 2))[1], notebook_formula(8, 10), rtol=0, atol=1e-12)


def test_sinusoidal_position_saves_nothing():
    assert SinusoidalPosition(grid_size=(3, 5), embed_dim=10).state_dict() == {}


def test_sinusoidal_position_survives_the_meta_device():
    with torch.device("meta"):
        position = SinusoidalPosition(grid_size=(3, 5), embed_dim=10)
    position.to_empty(device="cpu")
    torch.testing.assert_close(position.table, notebook_formula(15, 10).float())


@pytest.mark.parametrize("kind", [SinusoidalPosition, SinCosPosition])
def test_fixed_position_refuses_another_number_of_tokens(kind):
    with pytest.raises(ShapeError) as caught:
        kind(grid_size=(3, 5), embed_dim=12)(torch.zeros(2, 16, 12))
    assert str(caught.value) == "16 tokens: do not fill the position grid of 3x5; resize the images or the grid"


def mae_table(rows, columns, embed_dim):
    """Return MAE's table: half of the width for the column, half for the row; sines, then cosines in each half."""
    omega = 1 / 10000 ** (np.arange(embed_dim // 4) / (embed_dim / 4))
    table = np.empty((rows * columns, embed_dim))
    for row in range(rows):
        for column in range(columns):
            halves = [np.concatenate([np.sin(place * omega), np.cos(place * omega)]) for place in (column, row)]
            table[row * columns + column] = np.concatenate(halves)
    return torch.from_numpy(table)


def big_vision_table(rows, columns, embed_dim):
    """Return big_vision's table: sin x, cos x, sin y, cos y, with wavelengths from 1 to 10000 inclusive."""
    y, x = np.mgrid[:rows, :columns]
    omega = 1 / 10000 ** np.linspace(0, 1, embed_dim // 4)
    y, x = np.outer(y.ravel(), omega), np.outer(x.ravel(), omega)
    return torch.from_numpy(np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1))


SINCOS = [("mae", mae_table), ("big_vision", big_vision_table)]


@pytest.mark.parametrize(("variant", "table"), SINCOS)
@pytest.mark.parametrize("embed_dim", [20, 8])
def test_sincos2d_equals_the_published_formula(variant, table, embed_dim):
    torch.testing.assert_close(sincos2d((3, 5), embed_dim, variant=variant), table(3, 5, embed_dim), rtol=0, atol=1e-12)


def test_big_visions_narrowest_table_does_not_divide_by_zero():
    torch.testing.assert_close(sincos2d((3, 5), 4, variant="big_vision"), mae_table(3, 5, 4), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("variant", "table"), SINCOS)
def test_sincos_position_adds_the_formula_for_every_grid(variant, table):
    position = SinCosPosition(grid_size=(3, 5), embed_dim=20, variant=variant).double()
    assert position.state_dict() == {}
    for grid_size in (None, (3, 5), (4, 2)):
        rows, columns = grid_size or (3, 5)
        tokens = torch.randn(2, rows * columns, 20, dtype=torch.float64)
        expected = tokens + table(rows, columns, 20)
        torch.testing.assert_close(position(tokens, grid_size), expected, rtol=0, atol=1e-12)


def test_fixed_table_is_recomputed_after_a_cast_and_after_the_meta_device():
    position = SinCosPosition(grid_size=(3, 5), embed_dim=20).bfloat16()
    assert position.table.dtype == torch.bfloat16
    torch.testing.assert_close(position.double().table, mae_table(3, 5, 20), rtol=0, atol=1e-12)
    position.to("meta").to_empty(device="cpu")
    torch.testing.assert_close(position.table, mae_table(3, 5, 20), rtol=0, atol=1e-12)


def test_fixed_table_prints_its_grid_size():
    rotary = RotaryPosition(grid_size=(4, 7), head_dim=12, depth=2, num_prefix_tokens=3, kind="axial")
    assert repr(rotary) == "RotaryPosition(4x7)"
    assert repr(SinCosPosition(grid_size=(3, 5), embed_dim=20)) == "SinCosPosition(3x5)"


def test_no_position_returns_the_same_tokens():
    tokens = torch.randn(2, 15, 10)
    assert NoPosition()(tokens, (3, 5)) is tokens
