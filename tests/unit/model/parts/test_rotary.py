import cmath
import math

import pytest
import torch

from vitreous.model.parts.relation import rotate
from vitreous.model.parts.rotary import MixedRotaryPosition, RotaryPosition, draw_mixed

HEADS, DIM, DEPTH, PREFIX, GRID = 5, 12, 2, 3, (3, 5)


def fixed(kind, **changes):
    values = {"grid_size": GRID, "head_dim": DIM, "depth": DEPTH, "num_prefix_tokens": PREFIX, "theta": 100.0}
    return RotaryPosition(kind=kind, **values | changes).double()


def mixed(**changes):
    values = {"grid_size": GRID, "head_dim": DIM, "num_heads": HEADS, "depth": DEPTH, "num_prefix_tokens": PREFIX}
    position = MixedRotaryPosition(**values | changes).double()
    torch.manual_seed(1)
    torch.nn.init.normal_(position.freqs)
    return position


def angles(position, block, head, cell, grid_size):
    """Return the angles of one token in one head by the formulas of the papers."""
    (row, column), quarter = cell, DIM // 4
    if isinstance(position, MixedRotaryPosition):
        per_column, per_row = position.freqs[block, :, head].tolist()
        return [column * x + row * y for x, y in zip(per_column, per_row, strict=True)]
    wavelengths = [position.theta ** (4 * i / DIM) for i in range(quarter)]
    if position.kind == "axial":
        return [column / w for w in wavelengths] + [row / w for w in wavelengths]
    y, x = (2 * (place + 0.5) / side - 1 for place, side in zip(cell, grid_size, strict=True))
    return [2 * math.pi * y / w for w in wavelengths] + [2 * math.pi * x / w for w in wavelengths]


def naive_rotation(position, heads, block, grid_size):
    """Multiply each pair (i, i + half), as one complex number, by e^(i angle), one token and head at a time."""
    expected, half = heads.clone(), DIM // 2
    cells = [(row, column) for row in range(grid_size[0]) for column in range(grid_size[1])]
    for image in range(heads.shape[0]):
        for head in range(HEADS):
            for number, cell in enumerate(cells, start=PREFIX):
                vector = heads[image, head, number].tolist()
                for i, angle in enumerate(angles(position, block, head, cell, grid_size)):
                    pair = complex(vector[i], vector[i + half]) * cmath.exp(1j * angle)
                    expected[image, head, number, i] = pair.real
                    expected[image, head, number, i + half] = pair.imag
    return expected


KINDS = {"axial": lambda: fixed("axial"), "dinov3": lambda: fixed("dinov3"), "mixed": mixed}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid_size", [None, (3, 5), (4, 2)])
@torch.no_grad()
def test_rotation_is_a_complex_product_that_skips_prefix_tokens(kind, grid_size):
    position = KINDS[kind]()
    rows, columns = grid_size or GRID
    heads = torch.randn(2, HEADS, PREFIX + rows * columns, DIM, dtype=torch.float64)
    relations = position(grid_size)
    assert len(relations) == DEPTH
    for block, relation in enumerate(relations):
        rotated = rotate(heads, relation)
        expected = naive_rotation(position, heads, block, (rows, columns))
        torch.testing.assert_close(rotated, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(rotated[:, :, :PREFIX], heads[:, :, :PREFIX], rtol=0, atol=0)
        torch.testing.assert_close(rotated.norm(dim=-1), heads.norm(dim=-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_scores_depend_only_on_the_relative_position_of_two_patches(kind):
    position, (rows, columns) = KINDS[kind](), GRID
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, HEADS, 1, DIM, dtype=torch.float64).expand(-1, -1, -1, PREFIX + 15, -1)
    for relation in position():
        scores = (rotate(query, relation) @ rotate(key, relation).transpose(-2, -1))[0, :, PREFIX:, PREFIX:]
        scores = scores.reshape(HEADS, rows, columns, rows, columns)
        torch.testing.assert_close(scores[:, 1:, :, 1:], scores[:, :-1, :, :-1], rtol=0, atol=1e-11)
        torch.testing.assert_close(scores[:, :, 1:, :, 1:], scores[:, :, :-1, :, :-1], rtol=0, atol=1e-11)
        assert scores[0, 0, 0].std() > 0.1


def test_dinov3_angles_span_the_same_range_on_every_grid():
    coarse, fine = (fixed("dinov3", grid_size=size).table for size in ((3, 5), (9, 15)))
    center_of_each = [row * 15 + column for row in (1, 4, 7) for column in (1, 4, 7, 10, 13)]
    torch.testing.assert_close(fine[center_of_each], coarse, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_angles_are_recomputed_after_casts_and_after_the_meta_device(kind):
    position = KINDS[kind]()
    expected = position.table.clone()
    position.float().bfloat16().double()
    torch.testing.assert_close(position.table, expected, rtol=0, atol=0)
    position.to("meta")
    assert position.table.is_meta
    position.to_empty(device="cpu")
    torch.testing.assert_close(position.table, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["axial", "dinov3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_exact_angles_and_rotates_in_its_own_dtype(kind, dtype):
    exact, half = (fixed(kind, grid_size=(30, 50)).to(t) for t in (torch.float64, dtype))
    torch.testing.assert_close(half()[0].cos.double(), exact()[0].cos, rtol=0, atol=1e-5)
    torch.testing.assert_close(half((7, 60))[0].sin.double(), exact((7, 60))[0].sin, rtol=0, atol=1e-5)
    assert rotate(torch.randn(2, HEADS, PREFIX + 1500, DIM, dtype=dtype), half()[0]).dtype == dtype


def test_learned_angles_of_a_half_precision_model_are_computed_in_single_precision():
    position = mixed(grid_size=(30, 50)).bfloat16()
    exact = mixed(grid_size=(30, 50))
    with torch.no_grad():
        exact.freqs.copy_(position.freqs)  # rounded to bfloat16
    torch.testing.assert_close(position()[1].cos.double(), exact()[1].cos, rtol=0, atol=1e-4)


def test_only_mixed_angles_are_learned_and_saved():
    assert fixed("axial").state_dict() == {}
    assert {name: tuple(p.shape) for name, p in mixed().state_dict().items()} == {"freqs": (DEPTH, 2, HEADS, DIM // 2)}
    position = mixed()
    heads = torch.randn(2, HEADS, PREFIX + 15, DIM, dtype=torch.float64)
    rotate(heads, position()[1])[..., 0].sum().backward()
    assert position.freqs.grad[1].abs().sum() > 0
    torch.testing.assert_close(position.freqs.grad[0], torch.zeros_like(position.freqs.grad[0]), rtol=0, atol=0)


def test_mixed_frequencies_start_axial_up_to_a_random_turn_of_each_head():
    freqs = torch.empty(3, 2, HEADS, 8)
    draw_mixed(freqs, 10.0, torch.Generator().manual_seed(0))
    along, across = freqs.double().unbind(1)
    wavelengths = torch.tensor([10.0 ** (-i / 4) for i in range(4)] * 2).double()
    torch.testing.assert_close((along**2 + across**2).sqrt(), wavelengths.expand(3, HEADS, 8), rtol=0, atol=1e-6)
    directions = torch.atan2(across, along)
    torch.testing.assert_close(directions[..., :4], directions[..., :1].expand(3, HEADS, 4), rtol=0, atol=1e-6)
    quarter_turn = (directions[..., 4:] - directions[..., :4]) % (2 * math.pi)
    torch.testing.assert_close(quarter_turn, torch.full_like(quarter_turn, math.pi / 2), rtol=0, atol=1e-5)
    assert len({round(x, 4) for x in directions[..., 0].flatten().tolist()}) == 15


def test_keep_blocks_keeps_the_first_blocks():
    position = mixed()
    first = position.freqs[:1].detach().clone()
    position.keep_blocks(1)
    torch.testing.assert_close(position.freqs.detach(), first, rtol=0, atol=0)
    assert len(position()) == 1
    axial = fixed("axial")
    axial.keep_blocks(1)
    assert len(axial()) == 1
