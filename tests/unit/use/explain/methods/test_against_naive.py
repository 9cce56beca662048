"""Each method against its formula in plain loops, in float64, one image and one head at a time."""

import math

import numpy as np
import pytest
import torch
from tests.unit.use.explain.models import draw_images, make_model
from torch.nn import functional as F

from vitreous.use.explain.flow import read_rows
from vitreous.use.explain.methods import METHODS
from vitreous.use.explain.methods.gradients import pool_weights
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating, trace

BLOCKS, HEADS, WIDTH, REGISTERS = 2, 3, 24, 2
POOLS = ("token", "mean", "max", "map", "sequence", "token_mean")


def model_with(pool):
    model = make_model(dtype=torch.float64, pool=pool, num_registers=REGISTERS, layer_scale=0.5)
    model.head.bias.data.zero_()
    return model


class Naive:
    """One forward pass of one image, written out, with maps and states that a gradient can be taken of."""

    def __init__(self, model, image):
        self.model, self.prefix = model, model.num_prefix_tokens
        tokens = model.embed(image[None])[0][0].detach().requires_grad_()
        self.states, self.attended, self.maps = [tokens], [], []
        for block in model.encoder.blocks:
            normed = F.layer_norm(tokens, (WIDTH,), block.norm1.weight, block.norm1.bias, 1e-6)
            self.attended.append(normed)
            queries, keys, values = (normed @ block.attn.qkv.weight.T + block.attn.qkv.bias).split(WIDTH, dim=1)
            outputs, maps = [], []
            for head in range(HEADS):
                part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
                maps.append(torch.softmax(queries[:, part] @ keys[:, part].T / math.sqrt(WIDTH / HEADS), dim=1))
                outputs.append(maps[head] @ values[:, part])
            attended = torch.cat(outputs, dim=1) @ block.attn.proj.weight.T + block.attn.proj.bias
            tokens = tokens + block.ls1.gamma * attended
            tokens = tokens + block.ls2.gamma * block.mlp(
                F.layer_norm(tokens, (WIDTH,), block.norm2.weight, block.norm2.bias, 1e-6)
            )
            self.states.append(tokens)
            self.maps.append(maps)
        self.tokens = self.normed(tokens)
        logits = model(image[None])[0]
        self.highest, self.lowest = int(logits.argmax()), int(logits.argmin())

    def normed(self, tokens):
        norm = self.model.encoder.norm
        return F.layer_norm(tokens, (WIDTH,), norm.weight, norm.bias, 1e-6)

    def score(self, tokens):
        """The difference of two logits, for tokens after the final norm."""
        logits = self.model.head(self.model.pool(tokens[None]))[0]
        return logits[self.highest] - logits[self.lowest]

    def grid(self, values):
        return np.asarray(values[self.prefix :]).reshape(2, 3)


def target_of(model, images):
    """The most probable class of each image, compared with the least probable one."""
    logits = model(images)
    return Target(logits.argmax(dim=1), versus=logits.argmin(dim=1))


def read_by(pool, naive):
    """The weight of each token in a mean over the tokens that the pool reads."""
    count = len(naive.tokens)
    rows = np.zeros(count)
    for token in range(naive.prefix, count):
        rows[token] = 0 if pool == "token" else 1 / 6
    if pool == "token":
        rows[0] = 1
    if pool == "token_mean":
        rows /= 2
        rows[0] = 1 / 2
    return rows


def naive_attention(pool, naive):
    rows = read_by(pool, naive)
    values = np.zeros(len(naive.tokens))
    for query in range(len(rows)):
        for key in range(len(rows)):
            for head in range(HEADS):
                values[key] += rows[query] * naive.maps[-1][head][query, key].item() / HEADS
    return naive.grid(values)


def naive_rollout(pool, naive):
    count = len(naive.tokens)
    product = np.eye(count)
    for maps in naive.maps:
        mean = np.zeros((count, count))
        for one in maps:
            mean += one.detach().numpy() / HEADS
        mixed = 0.5 * mean + 0.5 * np.eye(count)
        product = mixed / mixed.sum(axis=1, keepdims=True) @ product
    return naive.grid(read_by(pool, naive) @ product)


def naive_shares(naive):
    """How fast the score rises when each token is scaled up, by central differences: no gradient of ours or torch's."""
    shares, tokens = [], naive.tokens.detach()
    for token in range(len(tokens)):
        up, down = tokens.clone(), tokens.clone()
        up[token] *= 1 + 1e-6
        down[token] *= 1 - 1e-6
        with torch.no_grad():
            shares.append(float(naive.score(up) - naive.score(down)) / 2e-6)
    return np.asarray(shares)


def naive_gradient_attention(pool, naive):
    count = len(naive.tokens)
    relevance = np.eye(count)
    score = naive.score(naive.tokens)
    for maps in naive.maps:
        weighted = np.zeros((count, count))
        for one in maps:
            (gradient,) = torch.autograd.grad(score, one, retain_graph=True)
            weighted += np.maximum(0, (one.detach() * gradient).numpy()) / HEADS
        relevance = relevance + weighted @ relevance
    if pool == "token":  # the row of the class token, as published
        return naive.grid(relevance[0])
    shares = np.maximum(0, naive_shares(naive))
    return naive.grid(shares / shares.sum() @ relevance)


def naive_attention_attribution(pool, naive):
    score, values = naive.score(naive.tokens), np.zeros(len(naive.tokens))
    for maps in naive.maps:
        for one in maps:
            (gradient,) = torch.autograd.grad(score, one, retain_graph=True)
            for query in range(len(values)):
                for key in range(len(values)):
                    values[key] += one[query, key].item() * gradient[query, key].item()
    (gradient,) = torch.autograd.grad(score, naive.tokens, retain_graph=True)
    mean = sum(naive.tokens[naive.prefix :].detach()) / 6
    for token in range(len(values)):
        values[token] += float((naive.tokens[token].detach() - mean) @ gradient[token])
    return naive.grid(values)


def naive_legrad(pool, naive, num_layers=2):
    values = np.zeros(len(naive.tokens))
    for block in range(BLOCKS - num_layers, BLOCKS):
        score = naive.score(naive.normed(naive.states[block + 1]))
        for one in naive.maps[block]:
            (gradient,) = torch.autograd.grad(score, one, retain_graph=True)
            for query in range(len(values)):
                for key in range(len(values)):
                    values[key] += max(0, float(gradient[query, key])) / HEADS / len(values)
    return naive.grid(values)


def naive_grad_cam(pool, naive):
    read = {"token": naive.attended[-1], "token_mean": naive.states[BLOCKS - 1]}
    tokens = read.get(pool, naive.states[BLOCKS])
    (gradient,) = torch.autograd.grad(naive.score(naive.tokens), tokens)
    values = np.zeros(len(tokens))
    for channel in range(WIDTH):
        weight = sum(float(gradient[token, channel]) for token in range(naive.prefix, len(tokens))) / 6
        for token in range(len(tokens)):
            values[token] += weight * tokens[token, channel].item()
    return np.maximum(0, naive.grid(values))


NAIVE = {
    "attention": naive_attention,
    "rollout": naive_rollout,
    "gradient-attention": naive_gradient_attention,
    "attention-attribution": naive_attention_attribution,
    "legrad": naive_legrad,
    "grad-cam": naive_grad_cam,
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", NAIVE)
def test_the_values_are_those_of_the_formula(name, pool):
    model, images = model_with(pool), draw_images(2, torch.float64)
    found = METHODS[name](model, images, target_of(model, images)).values
    for image, values in zip(images, found, strict=True):
        naive = Naive(model, image)
        logits = model(image[None])[0]
        torch.testing.assert_close(naive.score(naive.tokens), logits.max() - logits.min())
        expected = torch.from_numpy(NAIVE[name](pool, naive)).float()
        assert expected.abs().max() > 0
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pool", POOLS)
def test_pool_weights_are_the_positive_shares_of_the_tokens_in_the_score(pool):
    """Compared with finite differences of the score while a token is scaled."""
    model, images = model_with(pool), draw_images(2, torch.float64)
    for image in images:
        naive = Naive(model, image)
        (gradient,) = torch.autograd.grad(naive.score(naive.tokens), naive.tokens)
        found = pool_weights(naive.tokens.detach()[None], gradient[None])[0]
        shares = np.maximum(0, naive_shares(naive))
        torch.testing.assert_close(found, torch.from_numpy(shares / shares.sum()), rtol=1e-5, atol=1e-7)


def test_pools_without_a_positive_share_weight_tokens_by_the_size_of_their_gradient():
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]])
    gradients = torch.tensor([[[-3.0, 0.0], [0.0, -1.0], [0.0, 0.0]]])
    torch.testing.assert_close(pool_weights(tokens, gradients), torch.tensor([[0.75, 0.25, 0.0]]))
    torch.testing.assert_close(pool_weights(tokens, 0 * gradients), torch.zeros(1, 3))


@pytest.mark.parametrize("pool", POOLS)
def test_the_rows_of_tokens_that_a_pool_reads_sum_to_one(pool):
    model = model_with(pool)
    with evaluating(model) as vit, torch.no_grad():
        rows = read_rows(vit, trace(vit, draw_images(2, torch.float64)))
    torch.testing.assert_close(rows.sum(dim=2), torch.ones(2, 1, dtype=torch.float64))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_legrad_sums_over_the_last_layers(num_layers):
    model, images = model_with("mean"), draw_images(1, torch.float64)
    found = METHODS["legrad"](model, images, target_of(model, images), num_layers=num_layers).values[0]
    expected = naive_legrad("mean", Naive(model, images[0]), num_layers)
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_attention_of_each_layer_and_head_is_that_of_the_tokens_that_the_pool_reads(pool):
    model, images = model_with(pool), draw_images(2, torch.float64)
    naive = Naive(model, images[1])
    for layer in range(BLOCKS):
        for head in range(HEADS):
            expected = naive.grid(read_by(pool, naive) @ naive.maps[layer][head].detach().numpy())
            found = METHODS["attention"](model, images, layer=layer, head=head).values[1]
            torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pool", ["token", "mean", "sequence"])  # a maximum has steps, which take more points
def test_integrated_gradients_are_the_mean_gradient_on_the_way_times_the_image(pool):
    """Against a midpoint rule of 2,000 steps."""
    model, images = model_with(pool), draw_images(1, torch.float64)
    target = target_of(model, images)
    found = METHODS["integrated-gradients"](model, images, target, steps=100)
    points = ((torch.arange(2000, dtype=torch.float64)[:, None, None, None] + 0.5) / 2000 * images).requires_grad_()
    logits = model(points)
    (gradients,) = torch.autograd.grad((logits[:, target.classes] - logits[:, target.versus]).sum(), points)
    by_pixel = (gradients.mean(dim=0) * images[0]).detach().numpy()
    expected = torch.tensor([
        [by_pixel[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].sum() for column in range(3)]
        for row in range(2)
    ])  # fmt: skip
    torch.testing.assert_close(found.values[0], expected.float(), rtol=1e-3, atol=1e-4)
