"""Positions and rotations against those of `transformers`."""

import pytest
import torch
from transformers import DINOv3ViTConfig, ViTConfig
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTRopePositionEmbedding, apply_rotary_pos_emb
from transformers.models.vit.modeling_vit import ViTEmbeddings

from vitreous.model.parts.embedding import resize_grid
from vitreous.model.parts.relation import rotate
from vitreous.model.parts.rotary import RotaryPosition


@pytest.mark.parametrize("grid_size", [(3, 5), (7, 4)])
def test_dinov3_rotation_turns_queries_and_keys_as_transformers_does(grid_size):
    config = DINOv3ViTConfig(hidden_size=60, num_attention_heads=5, patch_size=4, rope_theta=100.0)
    theirs = DINOv3ViTRopePositionEmbedding(config).eval()
    ours = RotaryPosition(grid_size=(3, 5), head_dim=12, depth=2, num_prefix_tokens=3, kind="dinov3", theta=100.0)
    rows, columns = grid_size
    queries, keys = torch.randn(2, 2, 5, 3 + rows * columns, 12).unbind()
    cos, sin = theirs(torch.zeros(2, 3, 4 * rows, 4 * columns))
    expected = apply_rotary_pos_emb(queries, keys, cos, sin)
    relation = ours(grid_size)[1]
    torch.testing.assert_close((rotate(queries, relation), rotate(keys, relation)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid_size", [(4, 7), (9, 3), (12, 12)])
@torch.no_grad()
def test_huggingfaces_resize_is_that_of_its_vit(grid_size):
    theirs = ViTEmbeddings(ViTConfig(hidden_size=20, image_size=24, patch_size=4)).double()
    rows, columns = grid_size
    tokens = torch.zeros(1, 1 + rows * columns, 20, dtype=torch.float64)
    expected = theirs.interpolate_pos_encoding(tokens, 4 * rows, 4 * columns)[0, 1:].view(rows, columns, 20)
    grid = theirs.position_embeddings[0, 1:].view(6, 6, 20)
    torch.testing.assert_close(resize_grid(grid, grid_size, "huggingface"), expected, rtol=0, atol=1e-12)
