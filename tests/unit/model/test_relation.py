import pytest
import torch

from vitreous.model.attention import Attention
from vitreous.model.relation import Relation, as_rotation, block_bias, padding_bias, rotate, select

INF = float("inf")


def test_a_relation_without_angles_turns_nothing():
    heads = torch.randn(2, 5, 7, 4)
    assert rotate(heads, Relation()) is heads


def test_prefix_tokens_have_no_angle():
    angles = torch.randn(1, 5, 6, 3, dtype=torch.float64)
    relation = as_rotation(angles, 2)
    both = torch.cat([angles, angles], -1)
    torch.testing.assert_close(relation.cos[:, :, 2:], both.cos(), rtol=0, atol=0)
    torch.testing.assert_close(relation.sin[:, :, 2:], both.sin(), rtol=0, atol=0)
    torch.testing.assert_close(relation.cos[:, :, :2], torch.ones(1, 5, 2, 6).double(), rtol=0, atol=0)
    torch.testing.assert_close(relation.sin[:, :, :2], torch.zeros(1, 5, 2, 6).double(), rtol=0, atol=0)


@pytest.mark.parametrize("rotation_heads", [1, 5])
def test_select_takes_each_images_rows_of_angles_and_rows_and_columns_of_offsets(rotation_heads):
    cos, sin = torch.randn(2, 1, rotation_heads, 9, 6).unbind()
    bias, kept = torch.randn(1, 5, 9, 9), torch.tensor([[0, 2, 5, 8], [0, 1, 3, 4]])
    chosen = select(Relation(cos, sin, bias), kept)
    assert chosen.bias.shape == (2, 5, 4, 4)
    for image in range(2):
        for i, query in enumerate(kept[image]):
            torch.testing.assert_close(chosen.cos[image, :, i], cos[0, :, query], rtol=0, atol=0)
            torch.testing.assert_close(chosen.sin[image, :, i], sin[0, :, query], rtol=0, atol=0)
            for j, key in enumerate(kept[image]):
                torch.testing.assert_close(chosen.bias[image, :, i, j], bias[0, :, query, key], rtol=0, atol=0)


def test_select_of_nothing_is_nothing():
    assert select(Relation(), torch.tensor([[0, 2], [1, 2]])) == Relation()


def test_padding_bias_hides_keys_and_nothing_else():
    mask = torch.tensor([[True, True, False], [True, False, True]])
    torch.testing.assert_close(padding_bias(mask), torch.tensor([[[[0, 0, -INF]]], [[[0, -INF, 0]]]]))


@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
def test_padding_tokens_change_nothing_for_the_real_ones(kernel):
    torch.manual_seed(0)
    attention = Attention.plain(embed_dim=20, num_heads=5, kernel=kernel).double()
    tokens, lengths = torch.randn(2, 7, 20, dtype=torch.float64), (7, 4)
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    padded = attention(tokens, Relation(bias=padding_bias(mask)))
    for image, length in enumerate(lengths):
        alone = attention(tokens[image : image + 1, :length])
        torch.testing.assert_close(padded[image : image + 1, :length], alone, rtol=0, atol=1e-12)


def test_block_bias_hides_other_images():
    bias, image = block_bias((3, 1, 2)), [0, 0, 0, 1, 2, 2]
    expected = torch.tensor([[0.0 if image[q] == image[k] else -INF for k in range(6)] for q in range(6)])
    torch.testing.assert_close(bias, expected[None, None])
