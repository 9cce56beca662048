import numpy as np
import pytest
import torch
from tests.unit.use.explain.anatomy.models import VARIANTS, draw_images, make_model
from torch import nn

from vitreous.model.change.lora import add_lora
from vitreous.use.evaluate.paired import paired_interval
from vitreous.use.explain.anatomy.ablation import accuracy_lost, removed, right_without_parts


def without_head(model, images, block, head):
    """Return the logits if the columns of the projection that read a head are 0: what the head gives is then lost."""
    proj = model.encoder.blocks[block].attn.proj
    width, before = proj.in_features // model.config.num_heads, proj.weight.detach().clone()
    with torch.no_grad():
        proj.weight[:, head * width : (head + 1) * width] = 0
        logits = model(images)
        proj.weight.copy_(before)
    return logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_are_removed_in_every_architecture_and_come_back(variant):
    model = make_model(**VARIANTS[variant])
    images = draw_images(model, 40)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
        expected = [
            [without_head(model, images, block, head).argmax(dim=1) == labels for head in range(3)]
            for block in range(model.config.depth)
        ]
        whole, heads, blocks = right_without_parts(model, images, labels)
        assert whole.all()
        np.testing.assert_array_equal(heads.unflatten(1, (-1, 3)), np.moveaxis(np.array(expected), 2, 0))
        assert blocks.shape == (40, model.config.depth)
        assert torch.equal(model(images).argmax(dim=1), labels)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("variant", ["class token", "rotary", "post norm", "registers"])
def test_a_removed_block_is_the_identity(variant):
    model = make_model(**VARIANTS[variant])
    images = draw_images(model, 40)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
        _, _, found = right_without_parts(model, images, labels)
        for number, block in enumerate(model.encoder.blocks):
            tokens, relations = model.embed(images)
            tokens = model.encoder.norm_pre(tokens)
            for other, relation in enumerate(relations or [None] * 2):
                if other != number:
                    tokens = model.encoder.blocks[other](tokens, *(() if relation is None else (relation,)))
            expected = model.forward_head(model.encoder.norm(tokens))
            assert torch.equal(found[:, number], expected.argmax(dim=1) == labels)
            with removed(block):
                torch.testing.assert_close(model(images), expected)


def test_a_head_is_removed_before_a_low_rank_update_of_the_projection():
    model = make_model()
    add_lora(model, rank=2, alpha=2.0)
    images = draw_images(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3)
    attention = model.encoder.blocks[1].attn
    seen = []
    handle = attention.proj.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    with torch.no_grad(), removed(model.encoder.blocks[1], 2):
        model(images)
    handle.remove()
    assert seen[0][..., 16:].abs().max() == 0
    assert seen[0][..., :16].abs().min() > 0


def test_labels_may_be_several_for_an_image():
    model = make_model()
    images = draw_images(model, 10)
    with torch.no_grad():
        labels = (model(images) > 0).float()
    labels[3, 0] = 1 - labels[3, 0]
    whole, _, _ = right_without_parts(model, images, labels)
    assert whole.tolist() == [position != 3 for position in range(10)]


def test_accuracy_lost_has_the_paired_interval_of_each_part():
    draw = np.random.default_rng(0)
    whole, without = draw.random(50) < 0.8, draw.random((50, 2, 3)) < 0.6
    without[:, 1, 2] = whole
    found = accuracy_lost(whole, without)
    for block in range(2):
        for head in range(3):
            differences = whole.astype(float) - without[:, block, head]
            assert found.lost[block, head] == pytest.approx(whole.mean() - without[:, block, head].mean())
            assert found.intervals[block, head].tolist() == pytest.approx(paired_interval(differences))
    assert found.lost[1, 2] == 0
    assert not found.is_clear[1, 2]
    assert found.is_clear[accuracy_lost(whole, without).lost > 0.3].all()
