import pytest
import torch

from vitreous.model.parts.relation import Relation, as_rotation, of_images, rotate, select


def test_relation_without_angles_rotates_nothing():
    heads = torch.randn(2, 5, 7, 4)
    assert rotate(heads, Relation()) is heads


def test_prefix_tokens_are_not_rotated():
    angles = torch.randn(1, 5, 6, 3, dtype=torch.float64)
    relation = as_rotation(angles, 2)
    both = torch.cat([angles, angles], -1)
    torch.testing.assert_close(relation.cos[:, :, 2:], both.cos(), rtol=0, atol=0)
    torch.testing.assert_close(relation.sin[:, :, 2:], both.sin(), rtol=0, atol=0)
    torch.testing.assert_close(relation.cos[:, :, :2], torch.ones(1, 5, 2, 6).double(), rtol=0, atol=0)
    torch.testing.assert_close(relation.sin[:, :, :2], torch.zeros(1, 5, 2, 6).double(), rtol=0, atol=0)


@pytest.mark.parametrize("rotation_heads", [1, 5])
def test_select_takes_the_angles_and_biases_of_the_kept_tokens_of_each_image(rotation_heads):
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


def test_select_on_an_empty_relation_is_empty():
    assert select(Relation(), torch.tensor([[0, 2], [1, 2]])) == Relation()


def test_of_images_takes_the_tables_of_some_images_and_keeps_shared_ones():
    cos, sin = torch.randn(2, 4, 5, 7, 6).unbind()
    bias, kept = torch.randn(1, 5, 7, 7), torch.tensor([3, 1])
    chosen = of_images(Relation(cos, sin, bias), kept)
    torch.testing.assert_close(chosen.cos, torch.stack([cos[3], cos[1]]), rtol=0, atol=0)
    torch.testing.assert_close(chosen.sin, torch.stack([sin[3], sin[1]]), rtol=0, atol=0)
    assert chosen.bias is bias
    assert of_images(Relation(), kept) == Relation()
