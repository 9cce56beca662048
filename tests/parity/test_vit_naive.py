"""The logits of the whole model equal its equations written out in numpy, in float64, with random weights."""

import math

import numpy as np
import pytest
import torch

from vitreous.model import ModelConfig, build_model

HEIGHT, WIDTH, PATCH, DIM, HEADS, DEPTH, EPS = 12, 20, 4, 20, 5, 2, 1e-3


def naive_logits(weights, image, *, act, position, pool):
    """Compute the logits of one image `[channels, height, width]` by equations 1 to 4 of the paper."""
    patches = [
        image[:, row : row + PATCH, column : column + PATCH].reshape(-1)
        for row in range(0, HEIGHT, PATCH)
        for column in range(0, WIDTH, PATCH)
    ]
    tokens = [weights["tokenizer.proj.weight"] @ patch + weights["tokenizer.proj.bias"] for patch in patches]
    for number, token in enumerate(tokens):
        if position == "learned":
            token += weights["position.grid"][number // (WIDTH // PATCH), number % (WIDTH // PATCH)]
        elif position == "sinusoidal":
            for i in range(DIM // 2):
                token[2 * i] += math.sin(number / 10000 ** (2 * i / DIM))
                token[2 * i + 1] += math.cos(number / 10000 ** (2 * i / DIM))
    if pool == "token":
        tokens.insert(0, weights["prefix.class_token"] + weights.get("prefix.class_position", 0))
    for block in range(DEPTH):
        part = {
            name.split(f"blocks.{block}.")[-1]: value for name, value in weights.items() if f"blocks.{block}." in name
        }
        attended = attention(part, [layer_norm(part, "norm1", token) for token in tokens])
        tokens = [token + branch for token, branch in zip(tokens, attended, strict=True)]
        tokens = [token + mlp(part, layer_norm(part, "norm2", token), act) for token in tokens]
    tokens = [layer_norm(weights, "encoder.norm", token) for token in tokens]
    features = tokens[0] if pool == "token" else sum(tokens) / len(tokens)
    return weights["head.weight"] @ features + weights["head.bias"]


def layer_norm(weights, name, token):
    centered = token - token.mean()
    return centered / math.sqrt((centered**2).mean() + EPS) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(weights, tokens):
    projected = [weights["attn.qkv.weight"] @ token + weights["attn.qkv.bias"] for token in tokens]
    queries, keys, values = ([p.reshape(3, HEADS, DIM // HEADS)[i] for p in projected] for i in range(3))
    outputs = []
    for query in queries:
        heads = np.zeros((HEADS, DIM // HEADS))
        for head in range(HEADS):
            scores = np.array([query[head] @ key[head] for key in keys]) / math.sqrt(DIM / HEADS)
            probabilities = np.exp(scores) / np.exp(scores).sum()
            heads[head] = sum(p * value[head] for p, value in zip(probabilities, values, strict=True))
        outputs.append(weights["attn.proj.weight"] @ heads.reshape(-1) + weights["attn.proj.bias"])
    return outputs


def mlp(weights, token, act):
    hidden = weights["mlp.fc1.weight"] @ token + weights["mlp.fc1.bias"]
    activation = (lambda x: max(x, 0.0)) if act == "relu" else (lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))))
    return weights["mlp.fc2.weight"] @ np.array([activation(x) for x in hidden]) + weights["mlp.fc2.bias"]


@pytest.mark.parametrize("act", ["gelu", "relu"])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "none"])
@pytest.mark.parametrize("pool", ["token", "mean"])
def test_logits_equal_the_equations(act, position, pool):
    config = ModelConfig(
        img_size=(HEIGHT, WIDTH),
        patch_size=PATCH,
        in_chans=3,
        num_classes=7,
        embed_dim=DIM,
        depth=DEPTH,
        num_heads=HEADS,
        mlp_ratio=1.55,
        act=act,
        position=position,
        pool=pool,
        norm_eps=EPS,
        drop_path_rate=0.5,
        proj_drop_rate=0.5,
        attn_drop_rate=0.5,
        pos_drop_rate=0.5,
    )
    torch.manual_seed(0)
    model = build_model(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    images = torch.randn(2, 3, HEIGHT, WIDTH, dtype=torch.float64)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    expected = [naive_logits(weights, image, act=act, position=position, pool=pool) for image in images.numpy()]
    with torch.no_grad():
        torch.testing.assert_close(model(images), torch.from_numpy(np.stack(expected)), rtol=0, atol=1e-10)
