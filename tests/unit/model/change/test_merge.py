import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.errors import ConfigError
from vitreous.model import ModelConfig, build_model
from vitreous.model.change import merge
from vitreous.model.change.lora import LowRank, add_lora, merge_lora
from vitreous.model.change.merge import match, merge_tokens, merged_relation
from vitreous.model.taps import taps

PLAIN = ModelConfig(
    img_size=(12, 20), patch_size=4, in_chans=3, num_classes=7, embed_dim=40, depth=3, num_heads=5, mlp_ratio=2.0
)
VARIANTS = {
    "plain": {},
    "layer_scale": {"layer_scale": 0.3},
    "qk_norm": {"qk_norm": True},
    "axial": {"rotary": "axial", "num_registers": 2},
    "mixed": {"rotary": "mixed", "rotary_theta": 10.0},
    "dinov3": {"rotary": "dinov3", "key_bias": False, "mlp": "gated", "num_registers": 4},
    "relative_bias": {"relative_bias": True},
    "locality": {"locality": True},
    "locality_bias": {"locality": True, "relative_bias": True, "pool": "mean"},
    "gate": {"attn_gate": True},
    "post_norm": {"norm_order": "post"},
    "distilled": {"distill_token": True},
    "mean": {"pool": "mean"},
    "max": {"pool": "max"},
    "token_mean": {"pool": "token_mean"},
    "map": {"pool": "map"},
    "sequence": {"pool": "sequence"},
}


def make_model(kernel="auto", **changes):
    """Build a float64 model with noise on every parameter, including scales and tables."""
    model = build_model(dataclasses.replace(PLAIN, **changes), generator=torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    for block in model.encoder.blocks:
        block.attn.kernel = kernel
    return model.eval()


def draw_images(height=12, width=20):
    return torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_merging_nothing_leaves_logits_unchanged(variant, kernel):
    model = make_model(kernel, **VARIANTS[variant])
    torch.testing.assert_close(merge_tokens(model, 0)(draw_images()), model(draw_images()), rtol=0, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(2, 5),
    prefix=st.integers(0, 3),
    rotary=st.sampled_from(["none", "axial", "mixed", "dinov3"]),
    order=st.sampled_from(["pre", "post"]),
)
@torch.no_grad()
def test_merging_nothing_leaves_logits_unchanged_for_any_grid_and_prefix(rows, columns, prefix, rotary, order):
    size = (4 * rows, 4 * columns)
    model = make_model(img_size=size, pool="mean", num_registers=prefix, rotary=rotary, norm_order=order)
    images = draw_images(*size)
    torch.testing.assert_close(merge_tokens(model, 0)(images), model(images), rtol=0, atol=0)


@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if "locality" not in name])
@torch.no_grad()
def test_merging_identical_patches_leaves_logits_unchanged(variant, kernel):
    """Each patch occurs twice with the same position: one token of size 2 must have the effect of both."""
    model = make_model(kernel, **VARIANTS[variant])
    count = model.num_prefix_tokens
    patches = model.tokenizer(draw_images())[:, :6].repeat_interleave(2, dim=1)
    tokens = model.prefix(patches) if count else patches
    relations = None
    if model.relation is not None:
        twice = torch.cat([torch.arange(count), count + torch.arange(6).repeat_interleave(2)])
        relations = [
            relation._replace(
                cos=None if relation.cos is None else relation.cos[:, :, twice],
                sin=None if relation.sin is None else relation.sin[:, :, twice],
                bias=None if relation.bias is None else relation.bias[:, :, twice][:, :, :, twice],
            )
            for relation in model.relation()
        ]
    merging = merge_tokens(model, [6, 0, 0])
    (left, merged), *_ = merging.encoder.merging_steps(tokens, relations)
    assert left.shape[1] == count + 6
    torch.testing.assert_close(merged.sizes[:, count:], torch.full((2, 6), 2.0, dtype=torch.float64))
    torch.testing.assert_close(
        merging.forward_head(merging.encoder(tokens, relations)),
        model.forward_head(model.encoder(tokens, relations)),
        rtol=0,
        atol=1e-10,
    )


@torch.no_grad()
def test_merged_token_does_not_attend_to_itself_in_locality_attention():
    merging = merge_tokens(make_model(locality=True), [5, 0, 0])
    with taps(merging, "encoder.blocks.2.attn.maps") as seen:
        merging(draw_images())
    maps = seen["encoder.blocks.2.attn.maps"]
    assert maps.shape[-1] == 11
    assert maps.diagonal(dim1=-2, dim2=-1).abs().amax() == 0


def naive_layer_norm(norm, vector):
    mean = vector.mean()
    return (vector - mean) / (((vector - mean) ** 2).mean() + norm.eps).sqrt() * norm.weight + norm.bias


def naive_attention(attn, tokens, sizes):
    """Compute proportional attention for one image, one head, query and key at a time; return output and mean keys."""
    width = tokens.shape[1] // 5
    queries, keys, values = (tokens @ attn.qkv.weight.T + attn.qkv.bias).reshape(len(tokens), 3, 5, width).unbind(1)
    output = torch.zeros(len(tokens), 5, width, dtype=tokens.dtype)
    for head in range(5):
        for query in range(len(tokens)):
            weights = [
                size * math.exp(queries[query, head] @ keys[key, head] / math.sqrt(width))
                for key, size in enumerate(sizes)
            ]
            for key, weight in enumerate(weights):
                output[query, head] += weight / sum(weights) * values[key, head]
    return output.flatten(1) @ attn.proj.weight.T + attn.proj.bias, keys.mean(dim=1)


def naive_merge(tokens, keys, groups, number):
    """Merge tokens as ToMe does, with loops; `groups` holds the patches that each token represents."""
    first, second = list(range(2, len(tokens), 2)), list(range(1, len(tokens), 2))  # token 0 is the class token
    best = {}
    for a in first:
        similarity = {b: float(torch.cosine_similarity(keys[a], keys[b], dim=0)) for b in second}
        best[a] = max(similarity.items(), key=lambda pair: pair[1])
    leaving = sorted(first, key=lambda a: -best[a][1])[:number]
    members = {a: [a] for a in [0, *first] if a not in leaving} | {b: [b] for b in second}
    for a in leaving:
        members[best[a][0]].append(a)
    merged, merged_groups = [], []
    for group in members.values():
        total = sum(len(groups[token]) for token in group)
        merged.append(sum(len(groups[token]) / total * tokens[token] for token in group))
        merged_groups.append(sorted(patch for token in group for patch in groups[token]))
    return torch.stack(merged), merged_groups


def token_groups(model, images):
    """Return, for each block, the number of the token that each patch is part of: `[batch, blocks, patches]`."""
    tokens, relations = model.embed(images)
    unmerged = torch.arange(tokens.shape[1]).expand(tokens.shape[:2])
    sources = [unmerged if m is None else m.source for _, m in model.encoder.merging_steps(tokens, relations)]
    count = model.num_prefix_tokens
    return torch.stack(sources, dim=1)[:, :, count:] - count


@torch.no_grad()
def test_merging_equals_the_algorithm_of_the_paper():
    model, images, number = make_model(pool="token_mean"), draw_images(), 3
    embedded, _ = model.embed(images)
    merging = merge_tokens(model, number)
    numbers = token_groups(merging, images)
    for image in range(2):
        tokens, groups = embedded[image], [[place] for place in range(16)]
        for at, block in enumerate(model.encoder.blocks):
            normed = torch.stack([naive_layer_norm(block.norm1, token) for token in tokens])
            mixed, keys = naive_attention(block.attn, normed, [len(group) for group in groups])
            tokens, groups = naive_merge(tokens + mixed, keys, groups, number)
            tokens = tokens + block.mlp(torch.stack([naive_layer_norm(block.norm2, token) for token in tokens]))
            expected = torch.zeros(15, dtype=torch.int64)
            for place, group in enumerate(groups[1:]):
                for patch in group:
                    expected[patch - 1] = place
            torch.testing.assert_close(numbers[image, at], expected)
        tokens = torch.stack([naive_layer_norm(model.encoder.norm, token) for token in tokens])
        mean = sum(len(group) * token for group, token in zip(groups[1:], tokens[1:], strict=True)) / 15
        expected = model.head(torch.cat([tokens[0], mean]))
        torch.testing.assert_close(merging(images)[image], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_kernels_merge_the_same_tokens(variant):
    outcomes = [
        merge_tokens(make_model(kernel, **VARIANTS[variant]), [5, 0, 4])(draw_images())
        for kernel in ("explicit", "sdpa")
    ]
    torch.testing.assert_close(*outcomes, rtol=0, atol=1e-10)


MATCHED = {
    "plain": {},
    "keyless bias": {"key_bias": False},
    "norm of queries and keys": {"qk_norm": True, "norm": "rms"},
    "keyless bias, norm, rotation": {"key_bias": False, "qk_norm": True, "rotary": "axial"},
    "no bias, wide heads": {"qkv_bias": False, "head_dim": 12},
}


def add_updates(model):
    """Add low-rank updates that are not zero."""
    generator = torch.Generator().manual_seed(3)
    add_lora(model, rank=3, alpha=7.0, generator=generator)
    for part in model.modules():
        if isinstance(part, LowRank):
            part.up.weight.normal_(std=0.3, generator=generator)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("variant", MATCHED)
@torch.no_grad()
def test_matching_uses_the_keys_of_the_attention(variant, lora, monkeypatch):
    model, matched, attended = make_model(**MATCHED[variant]), [], []
    if lora:
        add_updates(model)
    monkeypatch.setattr(merge, "match", lambda keys, *counts: matched.append(keys) or match(keys, *counts))
    merging = merge_tokens(model, [4, 3, 1])
    for block in merging.encoder.blocks:
        block.attn.register_forward_pre_hook(lambda attn, inputs: attended.append(attn.project(*inputs)[1]))
    merging(draw_images())
    assert [keys.shape[2] for keys in matched] == [16, 12, 9]
    torch.testing.assert_close(matched, attended, rtol=0, atol=1e-12)


@torch.no_grad()
def test_merging_a_model_with_lora_equals_merging_the_model_with_its_updates_added():
    model = make_model(qk_norm=True)
    add_updates(model)
    expected = merge_tokens(merge_lora(model), 3)(draw_images())
    torch.testing.assert_close(merge_tokens(model, 3)(draw_images()), expected, rtol=0, atol=1e-10)


def test_matching_gives_every_prefix_token_its_own_number():
    keys = torch.randn(2, 5, 13, 8, generator=torch.Generator().manual_seed(3))
    for count in (0, 1, 2, 5):
        source = match(keys, (13 - count) // 2, count)
        assert source[:, :count].tolist() == [list(range(count))] * 2
        for image in source:
            assert image[count:].unique().tolist() == list(range(count, 13 - (13 - count) // 2))


@torch.no_grad()
def test_rotation_of_a_merged_token_is_the_mean_of_the_rotations_of_its_patches():
    model = make_model(rotary="axial", pool="mean")
    merging = merge_tokens(model, [7, 0, 0])
    tokens, relations = model.embed(draw_images())
    (_, merged), *_ = merging.encoder.merging_steps(tokens, relations)
    relation = merged_relation(relations[1], merged)
    for image in range(2):
        for token in range(8):
            members = merged.source[image] == token
            expected = relations[1].cos[0, 0, members].mean(dim=0)
            torch.testing.assert_close(relation.cos[image, 0, token], expected, rtol=0, atol=1e-14)
            assert merged.sizes[image, token] == members.sum()


def test_merging_model_shares_weights_and_their_names():
    model = make_model(layer_scale=0.1)
    merging = merge_tokens(model, 3)
    assert {id(parameter) for parameter in merging.parameters()} == {id(parameter) for parameter in model.parameters()}
    assert list(merging.state_dict()) == list(model.state_dict())
    assert type(model.encoder).__name__ == "Encoder"
    assert not merging.training


@torch.no_grad()
def test_merging_again_replaces_the_old_number():
    model = make_model()
    torch.testing.assert_close(
        merge_tokens(merge_tokens(model, 3), 0)(draw_images()), model(draw_images()), rtol=0, atol=1e-12
    )


@torch.no_grad()
def test_merged_patches_have_the_same_features_in_a_map():
    merging = merge_tokens(make_model(), [7, 0, 0])
    groups = token_groups(merging, draw_images())
    assert groups.shape == (2, 3, 15)
    assert groups[:, 2].amax(dim=1).tolist() == [7, 7]
    (features,) = merging.forward_intermediates(draw_images(), 1, intermediates_only=True, output_fmt="NLC")
    for image in range(2):
        for number in range(8):
            merged = features[image, groups[image, 2] == number]
            torch.testing.assert_close(merged, merged[:1].expand_as(merged), rtol=0, atol=0)


def test_checkpointed_merging_has_the_same_gradients():
    gradients = []
    for enable in (False, True):
        merging = merge_tokens(make_model(rotary="mixed"), 3).train()
        merging.set_grad_checkpointing(enable)
        merging(draw_images()).square().sum().backward()
        gradients.append([parameter.grad for parameter in merging.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=0, atol=1e-12)


@torch.no_grad()
def test_smaller_images_merge_at_most_half_of_their_patches():
    merging = merge_tokens(make_model(dynamic_img_size=True), [7, 4, 0])
    assert token_groups(merging, draw_images(4, 12)).amax(dim=2).tolist() == [[1, 0, 0], [1, 0, 0]]


def test_merging_works_while_patches_are_dropped():
    merging = merge_tokens(make_model(patch_drop_rate=0.4, rotary="dinov3"), 2).train()
    assert merging(draw_images()).isfinite().all()
    assert merging.forward_features(draw_images()).shape == (2, 10, 40)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (8, "num_merged=8: block 0 has 15 patches and merges 0 to 7 of them; "),
        ([3, 7, 0], "num_merged=7: block 1 has 12 patches and merges 0 to 6 of them; "),
        ([1, -2, 0], "num_merged=-2: block 1 has 14 patches and merges 0 to 7 of them; "),
        ([1, 2], r"num_merged=\[1, 2\]: gives 2 numbers for 3 blocks; give one per block"),
        ([1, 2.5, 0], "num_merged=2.5: block 1 has 14 patches"),
    ],
)
def test_error_for_too_many_merges_gives_the_possible_range(number, message):
    with pytest.raises(ConfigError, match=message):
        merge_tokens(make_model(), number)
