"""Models of other parts against their mathematics written out in numpy, a token at a time, with noise for weights."""

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
    centred = vector - vector.mean()
    return centred / math.sqrt((centred**2).mean() + EPS) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def rms_norm(weights, name, vector):
    return vector / math.sqrt((vector**2).mean() + EPS) * weights[f"{name}.weight"]


def gelu(vector):
    return np.array([x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in vector])


def silu(vector):
    return vector / (1 + np.exp(-vector))


def softmax(scores):
    shares = np.exp(np.array(scores) - max(scores))
    return shares / shares.sum()


def patches(weights, image, norm=None):
    """Projected patches, normed if asked, with their learned positions, if there are any."""
    tokens = []
    for row, column in CELLS:
        patch = image[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH].reshape(-1)
        position = weights["position.grid"][row, column] if "position.grid" in weights else 0
        token = linear(weights, "tokenizer.proj", patch)
        tokens.append((norm(weights, "patch_norm", token) if norm else token) + position)
    return tokens


def turn(vector, cell, theta):
    """Axial rotation of one head: half of the pairs by the column, half by the row; pairs are half a head apart."""
    turned, half = vector.copy(), HEAD_DIM // 2
    for i in range(half):
        place, power = (cell[1], i) if i < half // 2 else (cell[0], i - half // 2)
        angle = place * theta ** (-power / (half // 2))
        first, second = vector[i], vector[i + half]
        turned[i] = first * math.cos(angle) - second * math.sin(angle)
        turned[i + half] = second * math.cos(angle) + first * math.sin(angle)
    return turned


def attention(weights, tokens, cells=None, norm=None, theta=None):
    """`cells` has one place per token, None for prefix tokens; `norm` is on queries and keys."""
    heads = [linear(weights, "attn.qkv", token).reshape(3, HEADS, HEAD_DIM) for token in tokens]
    queries, keys, values = ([three[i] for three in heads] for i in range(3))
    if norm:
        queries = [np.stack([norm(weights, "attn.q_norm", head) for head in query]) for query in queries]
        keys = [np.stack([norm(weights, "attn.k_norm", head) for head in key]) for key in keys]
    if cells:
        queries, keys = (
            [all_heads if cell is None else np.stack([turn(head, cell, theta) for head in all_heads])
             for all_heads, cell in zip(part, cells, strict=True)]
            for part in (queries, keys)
        )  # fmt: skip
    outputs = []
    for query in queries:
        shares = [softmax([query[h] @ key[h] / math.sqrt(HEAD_DIM) for key in keys]) for h in range(HEADS)]
        gathered = [sum(s * value[h] for s, value in zip(shares[h], values, strict=True)) for h in range(HEADS)]
        outputs.append(linear(weights, "attn.proj", np.concatenate(gathered)))
    return outputs


def block_weights(weights, number):
    start = f"encoder.blocks.{number}."
    return {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}


def rotary_registers(weights, image):
    """Axial rotation, class token, registers with positions, RMS norms, normed patches, qk-norm, SwiGLU, LayerScale."""
    prefix = [
        weights["prefix.class_token"] + weights["prefix.class_position"],
        *(weights["prefix.registers"] + weights["prefix.register_position"]),
    ]
    tokens = [*prefix, *patches(weights, image, rms_norm)]
    cells = [*[None] * len(prefix), *CELLS]
    for number in range(DEPTH):
        part = block_weights(weights, number)
        normed = [rms_norm(part, "norm1", token) for token in tokens]
        gathered = attention(part, normed, cells, rms_norm, theta=7.0)
        tokens = [token + part["ls1.gamma"] * branch for token, branch in zip(tokens, gathered, strict=True)]
        for i, token in enumerate(tokens):
            gate, value = np.split(linear(part, "mlp.fc1", rms_norm(part, "norm2", token)), 2)
            tokens[i] = token + part["ls2.gamma"] * linear(part, "mlp.fc2", silu(gate) * value)
    tokens = [rms_norm(weights, "encoder.norm", token) for token in tokens]
    return linear(weights, "head", np.concatenate([tokens[0], sum(tokens[len(prefix) :]) / len(CELLS)]))


def pre_norm_blocks(weights, tokens):
    for number in range(DEPTH):
        part = block_weights(weights, number)
        gathered = attention(part, [layer_norm(part, "norm1", token) for token in tokens])
        tokens = [token + branch for token, branch in zip(tokens, gathered, strict=True)]
        hidden = [gelu(linear(part, "mlp.fc1", layer_norm(part, "norm2", token))) for token in tokens]
        tokens = [token + linear(part, "mlp.fc2", bent) for token, bent in zip(tokens, hidden, strict=True)]
    return tokens


def distilled(weights, image):
    """DeiT: a class and a distillation token, each with a position and a head of its own; the two are averaged."""
    prefix = [
        weights["prefix.class_token"] + weights["prefix.class_position"],
        weights["prefix.distill_token"] + weights["prefix.distill_position"],
    ]
    tokens = pre_norm_blocks(weights, [*prefix, *patches(weights, image)])
    by_class, by_distillation = (layer_norm(weights, "encoder.norm", token) for token in tokens[:2])
    return (linear(weights, "head.label", by_class) + linear(weights, "head.teacher", by_distillation)) / 2


def map_pool(weights, image):
    """A learned query attends to the patches; an MLP on a residual branch, fc_norm, head."""
    tokens = pre_norm_blocks(weights, patches(weights, image))
    tokens = [layer_norm(weights, "encoder.norm", token) for token in tokens]
    query = linear(weights, "pool.q", weights["pool.probe"]).reshape(HEADS, HEAD_DIM)
    keys, values = zip(
        *[linear(weights, "pool.kv", token).reshape(2, HEADS, HEAD_DIM) for token in tokens], strict=True
    )
    shares = [softmax([query[h] @ key[h] / math.sqrt(HEAD_DIM) for key in keys]) for h in range(HEADS)]
    gathered = [sum(s * value[h] for s, value in zip(shares[h], values, strict=True)) for h in range(HEADS)]
    pooled = linear(weights, "pool.proj", np.concatenate(gathered))
    hidden = gelu(linear(weights, "pool.mlp.fc1", layer_norm(weights, "pool.norm", pooled)))
    pooled = pooled + linear(weights, "pool.mlp.fc2", hidden)
    return linear(weights, "head", layer_norm(weights, "fc_norm", pooled))


def post_norm(weights, image):
    """Norms after each branch, a norm before the first block, relative offsets, mean of the patches, no last norm."""
    tokens = [layer_norm(weights, "encoder.norm_pre", token) for token in patches(weights, image)]
    for number in range(DEPTH):
        part, table = block_weights(weights, number), weights["relation.table"][number]
        heads = [linear(part, "attn.qkv", token).reshape(3, HEADS, HEAD_DIM) for token in tokens]
        gathered = []
        for three, (row, column) in zip(heads, CELLS, strict=True):
            joined = []
            for h in range(HEADS):
                scores = [
                    three[0, h] @ other[1, h] / math.sqrt(HEAD_DIM)
                    + table[h, row - row2 + ROWS - 1, column - column2 + COLUMNS - 1]
                    for other, (row2, column2) in zip(heads, CELLS, strict=True)
                ]
                joined.append(sum(s * other[2, h] for s, other in zip(softmax(scores), heads, strict=True)))
            gathered.append(linear(part, "attn.proj", np.concatenate(joined)))
        tokens = [t + layer_norm(part, "norm1", branch) for t, branch in zip(tokens, gathered, strict=True)]
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
