import pytest
import torch

from vitreous.model.parts.relation import Relation, as_rotation, rotate, select

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
