import pytest
import torch

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.patch_drop import PatchDrop
from vitreous.model.parts.relation import Relation

SHAPE = {"img_size": (12, 20), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 20, "depth": 2}


@pytest.mark.parametrize(("rate", "num_kept"), [(0.5, 10), (0.25, 15), (0.33, 13), (0.99, 1)])
def test_patch_drop_keeps_the_right_number_of_tokens_in_order(rate, num_kept):
    tokens = torch.randn(2, 20, 5)
    fewer, kept = PatchDrop(rate)(tokens)
    assert fewer.shape == (2, num_kept, 5)
    assert kept.shape == (2, num_kept)
    assert (kept.diff(dim=1) > 0).all()
    expected = torch.stack([torch.stack([tokens[b, cell] for cell in kept[b]]) for b in range(2)])
    torch.testing.assert_close(fewer, expected, rtol=0, atol=0)


def test_each_image_draws_its_own_patches_with_equal_probability():
    torch.manual_seed(0)
    _, kept = PatchDrop(0.6)(torch.zeros(20_000, 5, 1))
    assert len({tuple(cells) for cells in kept.tolist()}) == 10  # all ways to choose 2 of 5
    fraction = torch.bincount(kept.flatten(), minlength=5) / 20_000
    torch.testing.assert_close(fraction, torch.full((5,), 0.4), rtol=0, atol=0.02)


@pytest.mark.parametrize("drop", [PatchDrop(0.5).eval(), PatchDrop(0.0)])
def test_evaluation_and_rate_zero_keep_all_patches(drop):
    tokens = torch.randn(2, 20, 5)
    fewer, kept = drop(tokens)
    assert fewer is tokens
    assert kept is None


def test_patch_drop_prints_its_rate():
    assert repr(PatchDrop(0.3)) == "PatchDrop(rate=0.3)"


RELATIONS = [
    {},
    {"rotary": "axial"},
    {"rotary": "dinov3"},
    {"rotary": "mixed"},
    {"relative_bias": True},
]


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("prefix", [{"num_registers": 2}, {"pool": "mean"}, {"distill_token": True}])
@torch.no_grad()
def test_training_logits_depend_only_on_the_kept_patches(relation, prefix):
    """The logits of a batch equal those of each image by itself, computed from only its kept patches."""
    config = ModelConfig(**SHAPE, num_heads=5, patch_drop_rate=0.4, **relation, **prefix)
    model = build_model(config).double()
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(std=0.3)
    images, count = torch.randn(2, 3, 12, 20, dtype=torch.float64), config.num_prefix_tokens
    torch.manual_seed(1)
    logits = model(images)
    torch.manual_seed(1)
    _, kept = model.patch_drop(torch.empty(2, 15, 20))
    assert kept.shape == (2, 9)
    assert kept[0].tolist() != kept[1].tolist()
    relations = model.relation((3, 5)) if model.relation else [Relation()] * 2
    expected = []
    for image, cells in zip(images, kept.tolist(), strict=True):
        tokens = model.position(model.tokenizer(image[None]), (3, 5))
        tokens = torch.stack([tokens[:, cell] for cell in cells], dim=1)
        rows = [*range(count), *(cell + count for cell in cells)]
        kept_relations = [
            Relation(
                None if relation.cos is None else relation.cos[:, :, rows],
                None if relation.sin is None else relation.sin[:, :, rows],
                None if relation.bias is None else relation.bias[:, :, rows][:, :, :, rows],
            )
            for relation in relations
        ]
        tokens = model.encoder(model.prefix(tokens), kept_relations)
        expected.append(model.head(model.pool(tokens)))
    torch.testing.assert_close(logits, torch.cat(expected), rtol=0, atol=1e-10)
    assert model.eval().forward_features(images).shape == (2, 15 + count, 20)
