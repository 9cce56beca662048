"""Our ViT and that of transformers, with equal random weights in float64: equal logits and gradients."""

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from vitreous.model import ModelConfig, build_model

DEPTH = 2
CONFIG = ModelConfig(
    img_size=(12, 20),
    patch_size=4,
    in_chans=3,
    num_classes=7,
    embed_dim=20,
    depth=DEPTH,
    num_heads=5,
    mlp_ratio=2.37,
    norm_eps=1e-12,
)


def as_ours(theirs):
    """Convert named tensors of transformers, weights or gradients, to our names and shapes."""
    positions = theirs["vit.embeddings.position_embeddings"][0]
    ours = {
        "tokenizer.proj.weight": theirs["vit.embeddings.patch_embeddings.projection.weight"].flatten(1),
        "tokenizer.proj.bias": theirs["vit.embeddings.patch_embeddings.projection.bias"],
        "prefix.class_token": theirs["vit.embeddings.cls_token"][0, 0],
        "prefix.class_position": positions[0],
        "position.grid": positions[1:].view(3, 5, 20),
    }
    for kind in ("weight", "bias"):
        ours[f"encoder.norm.{kind}"] = theirs[f"vit.layernorm.{kind}"]
        ours[f"head.{kind}"] = theirs[f"classifier.{kind}"]
        for block in range(DEPTH):
            layer, ours_block = f"vit.layers.{block}", f"encoder.blocks.{block}"
            projections = [theirs[f"{layer}.attention.{name}_proj.{kind}"] for name in "qkv"]
            ours[f"{ours_block}.attn.qkv.{kind}"] = torch.cat(projections)
            ours[f"{ours_block}.attn.proj.{kind}"] = theirs[f"{layer}.attention.o_proj.{kind}"]
            ours[f"{ours_block}.norm1.{kind}"] = theirs[f"{layer}.layernorm_before.{kind}"]
            ours[f"{ours_block}.norm2.{kind}"] = theirs[f"{layer}.layernorm_after.{kind}"]
            for linear in ("fc1", "fc2"):
                ours[f"{ours_block}.mlp.{linear}.{kind}"] = theirs[f"{layer}.mlp.{linear}.{kind}"]
    return ours


@pytest.fixture
def pair():
    torch.manual_seed(0)
    theirs = ViTForImageClassification(
        ViTConfig(
            image_size=CONFIG.img_size,
            patch_size=CONFIG.patch_size,
            num_channels=CONFIG.in_chans,
            hidden_size=CONFIG.embed_dim,
            num_hidden_layers=DEPTH,
            num_attention_heads=CONFIG.num_heads,
            intermediate_size=CONFIG.mlp_dim,
            num_labels=CONFIG.num_classes,
            layer_norm_eps=CONFIG.norm_eps,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    ).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.5)
    ours = build_model(CONFIG).double()
    ours.load_state_dict(as_ours(theirs.state_dict()), strict=True)
    return ours, theirs


@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
def test_logits_and_all_gradients_equal_transformers(pair, kernel):
    ours, theirs = pair
    for block in ours.encoder.blocks:
        block.attn.kernel = kernel
    images = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    targets = torch.tensor([6, 2])
    our_images, their_images = images.clone().requires_grad_(), images.clone().requires_grad_()
    our_logits, their_logits = ours(our_images), theirs(their_images).logits
    torch.testing.assert_close(our_logits, their_logits, rtol=0, atol=1e-10)

    torch.nn.functional.cross_entropy(our_logits, targets).backward()
    torch.nn.functional.cross_entropy(their_logits, targets).backward()
    torch.testing.assert_close(our_images.grad, their_images.grad, rtol=0, atol=1e-10)
    expected = as_ours({name: parameter.grad for name, parameter in theirs.named_parameters()})
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=0, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}"
        )
