import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.model.parts.relative_bias import RelativeBias, offset_index, resize_table

ROWS, COLUMNS, HEADS, DEPTH = 3, 5, 5, 2


def make(num_prefix_tokens):
    torch.manual_seed(0)
    bias = RelativeBias(
        grid_size=(ROWS, COLUMNS), num_heads=HEADS, depth=DEPTH, num_prefix_tokens=num_prefix_tokens
    ).double()
    for parameter in bias.parameters():
        torch.nn.init.normal_(parameter)
    return bias


def naive(bias, block, count):
    """One entry per query and key, looked up by the rows and columns between them."""
    length = count + ROWS * COLUMNS
    expected = torch.empty(HEADS, length, length, dtype=torch.float64)
    for query in range(length):
        for key in range(length):
            if query >= count and key >= count:
                (row, column), (row2, column2) = divmod(query - count, COLUMNS), divmod(key - count, COLUMNS)
                entry = bias.table[block, :, row - row2 + ROWS - 1, column - column2 + COLUMNS - 1]
            else:
                kind = 2 if query < count and key < count else 0 if query < count else 1
                entry = bias.prefix_table[block, :, kind]
            expected[:, query, key] = entry
    return expected


@pytest.mark.parametrize("count", [0, 1, 3])
@torch.no_grad()
def test_each_score_gets_the_entry_of_its_offset_and_prefix_tokens_their_three(count):
    bias = make(count)
    relations = bias()
    assert len(relations) == DEPTH
    for block, relation in enumerate(relations):
        torch.testing.assert_close(relation.bias, naive(bias, block, count)[None], rtol=0, atol=0)
        assert relation.cos is None
    assert (bias.prefix_table is None) is (count == 0)


def test_every_offset_is_used_as_often_as_two_patches_have_it():
    used = torch.bincount(offset_index((ROWS, COLUMNS)).flatten(), minlength=5 * 9).reshape(5, 9)
    expected = [[(3 - abs(i - 2)) * (5 - abs(j - 4)) for j in range(9)] for i in range(5)]
    torch.testing.assert_close(used, torch.tensor(expected))


def test_another_grid_is_refused():
    with pytest.raises(ShapeError) as caught:
        make(1)((5, 3))
    assert str(caught.value) == ("a grid of 5x3: relative_bias has entries only for 3x5; resize images or model")


def test_kept_blocks_are_the_first():
    bias = make(2)
    second, prefix = bias.table[:1].detach().clone(), bias.prefix_table[:1].detach().clone()
    bias.keep_blocks(1)
    torch.testing.assert_close(bias.table.detach(), second, rtol=0, atol=0)
    torch.testing.assert_close(bias.prefix_table.detach(), prefix, rtol=0, atol=0)
    assert len(bias()) == 1


def test_resize_keeps_the_centre_the_extremes_and_the_symmetry():
    table = torch.randn(DEPTH, HEADS, 5, 9, dtype=torch.float64)
    table = table + table.flip(2) + table.flip(3) + table.flip(2, 3)
    resized = resize_table(table, (4, 7))
    assert resized.shape == (DEPTH, HEADS, 7, 13)
    torch.testing.assert_close(resized[..., 3, 6], table[..., 2, 4], rtol=0, atol=1e-12)
    torch.testing.assert_close(resized[..., ::6, ::12], table[..., ::4, ::8], rtol=0, atol=1e-12)
    torch.testing.assert_close(resized, resized.flip(2, 3), rtol=0, atol=1e-12)


def test_resize_to_twice_the_offsets_keeps_the_known_ones():
    table = torch.randn(DEPTH, HEADS, 5, 9, dtype=torch.float64)
    torch.testing.assert_close(resize_table(table, (5, 9))[..., ::2, ::2], table, rtol=0, atol=1e-12)
    assert resize_table(table, (3, 5)) is table
    assert resize_table(table.bfloat16(), (5, 3)).dtype == torch.bfloat16
