"""The logits of models with other parts equal their equations written out in numpy, token by token."""

import math

import numpy as np
import pytest
import torch

from vitreous.model import ModelConfig, build_model

HEIGHT, WIDTH, PATCH, DIM, HEADS, DEPTH, EPS = 12, 20, 4, 20, 5, 2, 1e-3
ROWS, COLUMNS, HEAD_DIM = HEIGHT // PATCH, WIDTH // PATCH, DIM // HEADS
CELLS = [(row, column) for row in range(ROWS) for column in range(COLUMNS)]


def linear(weights, name, vector):
    return weights[f"{name}.weight"] @ vector + weights.get(f"{name}.bias", 0)


def layer_norm(weights, name, vector):
    centered = vector - vector.mean()
    return centered / math.sqrt((centered**2).mean() + EPS) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def rms_norm(weights, name, vector):
    return vector / math.sqrt((vector**2).mean() + EPS) * weights[f"{name}.weight"]


def gelu(vector):
    return np.array([x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in vector])


def silu(vector):
    return vector / (1 + np.exp(-vector))


def softmax(scores):
    exponentials = np.exp(np.array(scores) - max(scores))
    return exponentials / exponentials.sum()


def patch_tokens(weights, image, norm=None):
    """Project the patches, apply `norm` if it is given, and add learned positions if the model has them."""
    tokens = []
    for row, column in CELLS:
        patch = image[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH].reshape(-1)
        position = weights["position.grid"][row, column] if "position.grid" in weights else 0
        token = linear(weights, "tokenizer.proj", patch)
        tokens.append((norm(weights, "patch_norm", token) if norm else token) + position)
    return tokens


def rotate(vector, cell, theta):
    """Rotate pairs (i, i + half) of one head: angles of the first pairs depend on the column, the others on the row."""
    rotated, half = vector.copy(), HEAD_DIM // 2
    for i in range(half):
        place, power = (cell[1], i) if i < half // 2 else (cell[0], i - half // 2)
        angle = place * theta ** (-power / (half // 2))
        first, second = vector[i], vector[i + half]
        rotated[i] = first * math.cos(angle) - second * math.sin(angle)
        rotated[i + half] = second * math.cos(angle) + first * math.sin(angle)
    return rotated


def attention(weights, tokens, cells=None, norm=None, theta=None):
    """Attend; `cells` has the row and column of each token, None for prefix tokens; `norm` is for queries and keys."""
    heads = [linear(weights, "attn.qkv", token).reshape(3, HEADS, HEAD_DIM) for token in tokens]
    queries, keys, values = ([three[i] for three in heads] for i in range(3))
    if norm:
        queries = [np.stack([norm(weights, "attn.q_norm", head) for head in query]) for query in queries]
        keys = [np.stack([norm(weights, "attn.k_norm", head) for head in key]) for key in keys]
    if cells:
        queries, keys = (
            [all_heads if cell is None else np.stack([rotate(head, cell, theta) for head in all_heads])
             for all_heads, cell in zip(part, cells, strict=True)]
            for part in (queries, keys)
        )  # fmt: skip
    return [linear(weights, "attn.proj", attend(query, keys, values)) for query in queries]


def attend(query, keys, values):
    """Return the mean of the values, weighted by the attention of one query, with all heads side by side."""
    probabilities = [softmax([query[h] @ key[h] / math.sqrt(HEAD_DIM) for key in keys]) for h in range(HEADS)]
    heads = [sum(p * value[h] for p, value in zip(probabilities[h], values, strict=True)) for h in range(HEADS)]
    return np.concatenate(heads)


def block_weights(weights, number):
    start = f"encoder.blocks.{number}."
    return {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}


def rotary_registers(weights, image):
    """Compute logits with axial rotation, registers, RMS norms, patch_norm, qk_norm, SwiGLU and LayerScale."""
    prefix = [
        weights["prefix.class_token"] + weights["prefix.class_position"],
        *(weights["prefix.registers"] + weights["prefix.register_position"]),
    ]
    tokens = [*prefix, *patch_tokens(weights, image, rms_norm)]
    cells = [*[None] * len(prefix), *CELLS]
    for number in range(DEPTH):
        part = block_weights(weights, number)
        normed = [rms_norm(part, "norm1", token) for token in tokens]
        attended = attention(part, normed, cells, rms_norm, theta=7.0)
        tokens = [token + part["ls1.gamma"] * branch for token, branch in zip(tokens, attended, strict=True)]
        for i, token in enumerate(tokens):
            gate, value = np.split(linear(part, "mlp.fc1", rms_norm(part, "norm2", token)), 2)
            tokens[i] = token + part["ls2.gamma"] * linear(part, "mlp.fc2", silu(gate) * value)
    tokens = [rms_norm(weights, "encoder.norm", token) for token in tokens]
    return linear(weights, "head", np.concatenate([tokens[0], sum(tokens[len(prefix) :]) / len(CELLS)]))


def pre_norm_blocks(weights, tokens):
    for number in range(DEPTH):
        part = block_weights(weights, number)
        attended = attention(part, [layer_norm(part, "norm1", token) for token in tokens])
        tokens = [token + branch for token, branch in zip(tokens, attended, strict=True)]
        hidden = [gelu(linear(part, "mlp.fc1", layer_norm(part, "norm2", token))) for token in tokens]
        tokens = [token + linear(part, "mlp.fc2", values) for token, values in zip(tokens, hidden, strict=True)]
    return tokens


def distilled(weights, image):
    """Compute the logits of DeiT, averaged over the heads of class token and distillation token."""
    prefix = [
        weights["prefix.class_token"] + weights["prefix.class_position"],
        weights["prefix.distill_token"] + weights["prefix.distill_position"],
    ]
    tokens = pre_norm_blocks(weights, [*prefix, *patch_tokens(weights, image)])
    by_class, by_distillation = (layer_norm(weights, "encoder.norm", token) for token in tokens[:2])
    return (linear(weights, "head.label", by_class) + linear(weights, "head.teacher", by_distillation)) / 2


def map_pool(weights, image):
    """Compute logits with attention pooling: a learned query attends to the patches; residual MLP, fc_norm and head."""
    tokens = pre_norm_blocks(weights, patch_tokens(weights, image))
    tokens = [layer_norm(weights, "encoder.norm", token) for token in tokens]
    query = linear(weights, "pool.q", weights["pool.probe"]).reshape(HEADS, HEAD_DIM)
    keys, values = zip(
        *[linear(weights, "pool.kv", token).reshape(2, HEADS, HEAD_DIM) for token in tokens], strict=True
    )
    pooled = linear(weights, "pool.proj", attend(query, keys, values))
    hidden = gelu(linear(weights, "pool.mlp.fc1", layer_norm(weights, "pool.norm", pooled)))
    pooled = pooled + linear(weights, "pool.mlp.fc2", hidden)
    return linear(weights, "head", layer_norm(weights, "fc_norm", pooled))


def post_norm(weights, image):
    """Compute logits with post-norm blocks, a norm before the first one, relative bias, mean pool and no final norm."""
    tokens = [layer_norm(weights, "encoder.norm_pre", token) for token in patch_tokens(weights, image)]
    for number in range(DEPTH):
        part, table = block_weights(weights, number), weights["relation.table"][number]
        heads = [linear(part, "attn.qkv", token).reshape(3, HEADS, HEAD_DIM) for token in tokens]
        attended = []
        for qkv, (row, column) in zip(heads, CELLS, strict=True):
            joined = []
            for h in range(HEADS):
                scores = [
                    qkv[0, h] @ other[1, h] / math.sqrt(HEAD_DIM)
                    + table[h, row - row2 + ROWS - 1, column - column2 + COLUMNS - 1]
                    for other, (row2, column2) in zip(heads, CELLS, strict=True)
                ]
                joined.append(sum(s * other[2, h] for s, other in zip(softmax(scores), heads, strict=True)))
            attended.append(linear(part, "attn.proj", np.concatenate(joined)))
        tokens = [t + layer_norm(part, "norm1", branch) for t, branch in zip(tokens, attended, strict=True)]
        branches = [linear(part, "mlp.fc2", gelu(linear(part, "mlp.fc1", token))) for token in tokens]
        tokens = [t + layer_norm(part, "norm2", branch) for t, branch in zip(tokens, branches, strict=True)]
    return linear(weights, "head", sum(tokens) / len(tokens))


VARIANTS = [
    (
        rotary_registers,
        {
            "rotary": "axial", "rotary_theta": 7.0, "num_registers": 3, "prefix_position": "all", "layer_scale": 0.1,
            "mlp": "gated", "act": "silu", "norm": "rms", "qk_norm": True, "pool": "token_mean", "qkv_bias": False,
            "proj_bias": False, "mlp_bias": False, "patch_bias": False, "patch_norm": True,
        },
    ),
    (distilled, {"distill_token": True}),
    (map_pool, {"pool": "map", "fc_norm": True}),
    (post_norm, {
        "norm_order": "post", "embed_norm": True, "relative_bias": True, "pool": "mean", "final_norm": False,
        "position": "none",
    }),
]  # fmt: skip


@pytest.mark.parametrize(("naive", "changes"), VARIANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_logits_equal_the_equations(naive, changes):
    config = ModelConfig(
        img_size=(HEIGHT, WIDTH),
        patch_size=PATCH,
        in_chans=3,
        num_classes=7,
        embed_dim=DIM,
        depth=DEPTH,
        num_heads=HEADS,
        mlp_ratio=1.55,
        norm_eps=EPS,
        drop_path_rate=0.5,
        patch_drop_rate=0.5,
        **changes,
    )
    torch.manual_seed(0)
    model = build_model(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    images = torch.randn(2, 3, HEIGHT, WIDTH, dtype=torch.float64)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    expected = torch.from_numpy(np.stack([naive(weights, image) for image in images.numpy()]))
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-10)
