import re

import pytest
import torch
from torch import nn

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model import ModelConfig, VisionTransformer, build_model, load_model, save_model
from vitreous.model.backbone import block_numbers

SHAPE = {"img_size": (12, 20), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 20, "depth": 4}
IMAGES = torch.randn(2, 3, 12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def make_model(**changes):
    """Build a float64 model in which every parameter is random."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(**SHAPE | {"num_registers": 2} | changes, num_heads=5)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def tokens_after_each_block(model):
    """Run a plain forward pass and return the tokens after each block, read by hooks."""
    outputs, handles = [], []
    for block in model.encoder.blocks:
        handles.append(block.register_forward_hook(lambda module, inputs, output: outputs.append(output)))
    model(IMAGES)
    for handle in handles:
        handle.remove()
    return outputs


def as_map(tokens):
    """Arrange patches `[batch, 15, width]` as `[batch, width, 3, 5]`, cell by cell."""
    maps = torch.empty(len(tokens), tokens.shape[2], 3, 5, dtype=tokens.dtype)
    for cell in range(15):
        maps[:, :, cell // 5, cell % 5] = tokens[:, cell]
    return maps


CHOICES = [(None, [0, 1, 2, 3]), (2, [2, 3]), ([0, 2], [0, 2]), ((-1, -3), [1, 3]), ([2, 0, -2], [0, 2])]


@pytest.mark.parametrize(("indices", "expected"), CHOICES)
@pytest.mark.parametrize("norm", [False, True])
@torch.no_grad()
def test_intermediates_are_the_patches_after_the_requested_blocks(indices, expected, norm):
    model = make_model()
    outputs = tokens_after_each_block(model)
    wanted = [model.encoder.norm(outputs[number]) if norm else outputs[number] for number in expected]
    tokens, maps = model.forward_intermediates(IMAGES, indices, norm=norm)
    torch.testing.assert_close(tokens, model.forward_features(IMAGES), rtol=0, atol=0)
    torch.testing.assert_close(maps, [as_map(each[:, 3:]) for each in wanted], rtol=0, atol=0)
    rows = model.forward_intermediates(IMAGES, indices, norm=norm, output_fmt="NLC", intermediates_only=True)
    torch.testing.assert_close(rows, [each[:, 3:] for each in wanted], rtol=0, atol=0)
    pairs = model.forward_intermediates(
        IMAGES, indices, norm=norm, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
    )
    torch.testing.assert_close(pairs, [(each[:, 3:], each[:, :3]) for each in wanted], rtol=0, atol=0)


@torch.no_grad()
def test_stop_early_runs_no_block_after_the_last_requested_one():
    model = make_model()
    outputs, ran = tokens_after_each_block(model), []
    for number, block in enumerate(model.encoder.blocks):
        block.register_forward_hook(lambda module, inputs, output, number=number: ran.append(number))
    tokens, (second,) = model.forward_intermediates(IMAGES, [1], stop_early=True, output_fmt="NLC")
    assert ran == [0, 1]
    torch.testing.assert_close(second, outputs[1][:, 3:], rtol=0, atol=0)
    torch.testing.assert_close(tokens, model.encoder.norm(outputs[1]), rtol=0, atol=0)


@torch.no_grad()
def test_get_intermediate_layers_returns_the_normalized_patches_of_the_last_blocks():
    model = make_model()
    outputs = tokens_after_each_block(model)
    expected = [model.encoder.norm(each)[:, 3:] for each in outputs[-2:]]
    torch.testing.assert_close(model.get_intermediate_layers(IMAGES, 2), expected, rtol=0, atol=0)
    torch.testing.assert_close(model.get_intermediate_layers(IMAGES, [0], norm=False), [outputs[0][:, 3:]])


def test_intermediates_of_a_dynamic_model_have_the_grid_of_the_images():
    model = make_model(dynamic_img_size=True)
    (last,) = model.forward_intermediates(torch.randn(2, 3, 8, 28).double(), 1, intermediates_only=True)
    assert last.shape == (2, 20, 2, 7)


def test_dropped_patches_allow_nlc_but_not_nchw():
    model = make_model(patch_drop_rate=0.4).train()
    with pytest.raises(ConfigError) as caught:
        model.forward_intermediates(IMAGES)
    assert str(caught.value) == (
        "output_fmt=NCHW: patches dropped in training leave holes in a map; use NLC, or model.eval()"
    )
    assert model.forward_intermediates(IMAGES, 1, output_fmt="NLC", intermediates_only=True)[0].shape == (2, 9, 20)


@pytest.mark.parametrize(
    ("indices", "got"), [(0, "0"), (5, "5"), (-1, "-1"), ([1, 4], "4"), ([-5, 0], "-5"), ([], "[]")]
)
def test_unknown_block_is_named_in_the_error(indices, got):
    with pytest.raises(ConfigError) as caught:
        block_numbers(indices, 4)
    assert str(caught.value) == f"indices={got}: no such block; the model has blocks 0 to 3"


def test_unknown_layout_is_refused():
    with pytest.raises(ConfigError) as caught:
        make_model().forward_intermediates(IMAGES, output_fmt="NHWC")
    assert str(caught.value) == "output_fmt=NHWC: no such layout; use NCHW or NLC"


VARIANTS = [
    {}, {"rotary": "mixed"}, {"rotary": "axial"}, {"relative_bias": True}, {"pool": "map"}, {"pool": "sequence"},
]  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS)
@torch.no_grad()
def test_pruning_keeps_only_what_the_intermediates_need(changes, tmp_path):
    model = make_model(fc_norm=True, drop_path_rate=0.3, **changes)
    expected = model.forward_intermediates(IMAGES, [0, -3], intermediates_only=True)
    assert model.prune_intermediate_layers([0, -3]) == [0, 1]
    maps = model.forward_intermediates(IMAGES, [0, 1], intermediates_only=True)
    torch.testing.assert_close(maps, expected, rtol=0, atol=0)
    names = set(dict(model.named_parameters()))
    assert not [name for name in names if re.match(r"encoder\.blocks\.[23]|head|fc_norm|pool", name)]
    assert (len(model.encoder.blocks), model.config.depth, model.num_classes) == (2, 2, 0)
    save_model(tmp_path / "model.safetensors", model, {})
    loaded = load_model(tmp_path / "model.safetensors", dtype=None)
    torch.testing.assert_close(loaded(IMAGES), model(IMAGES), rtol=0, atol=0)
    rates = [[block.drop_path.rate for block in each.encoder.blocks] for each in (model, loaded)]
    assert rates == [pytest.approx([0, 0.1]), pytest.approx([0, 0.1])]


@pytest.mark.parametrize("changes", [{"relative_bias": True}, {"rotary": "mixed", "head_dim": 8}])
def test_pruning_leaves_frozen_weights_frozen(changes):
    model = make_model(**changes).requires_grad_(False)
    model.prune_intermediate_layers([0], prune_head=False)
    assert not [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@torch.no_grad()
def test_pruning_can_remove_the_norm_and_keep_the_head():
    model = make_model()
    second = tokens_after_each_block(model)[1]
    assert model.prune_intermediate_layers([1], prune_norm=True, prune_head=False) == [1]
    assert not model.config.final_norm
    torch.testing.assert_close(model.forward_features(IMAGES), second, rtol=0, atol=0)
    assert model(IMAGES).shape == (2, 7)


@pytest.mark.parametrize("changes", [*VARIANTS, {"distill_token": True, "embed_norm": True, "patch_norm": True}])
@torch.no_grad()
def test_model_rebuilt_from_its_parts_gives_the_same_logits(changes):
    model = make_model(fc_norm=True, **changes)
    rebuilt = VisionTransformer(model.config, **model.parts()).eval()
    torch.testing.assert_close(rebuilt(IMAGES), model(IMAGES), rtol=0, atol=0)
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    assert all(rebuilt.get_parameter(name) is parameter for name, parameter in model.named_parameters())


def test_feature_info_gives_width_reduction_and_name_of_each_block():
    model = make_model()
    assert model.feature_info[2] == {"num_chs": 20, "reduction": 4, "module": "encoder.blocks.2"}
    assert len(model.feature_info) == 4
    modules = dict(model.named_modules())
    assert [modules[info["module"]] for info in model.feature_info] == list(model.encoder.blocks)
    assert (model.num_features, model.head_hidden_size, model.embed_dim, model.num_prefix_tokens) == (20, 20, 20, 3)
    assert make_model(pool="token_mean").num_features == 40


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"fc_norm": True, "pool": "mean"}, {"distill_token": True}])
def test_forward_head_gives_logits_or_the_pooled_features(changes):
    model = make_model(**changes)
    tokens = model.forward_features(IMAGES)
    features = model.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(features, model.fc_norm(model.pool(tokens)), rtol=0, atol=0)
    assert features.shape == (2, model.num_features)
    torch.testing.assert_close(model.forward_head(tokens), model.head(features), rtol=0, atol=0)
    torch.testing.assert_close(model(IMAGES), model.head(features), rtol=0, atol=1e-12)


@torch.no_grad()
def test_fc_norm_normalizes_the_pooled_features():
    model = make_model(fc_norm=True, pool="mean", final_norm=False)
    pooled = model.forward_features(IMAGES)[:, 2:].mean(1)
    centered = pooled - pooled.mean(-1, keepdim=True)
    expected = centered / ((centered**2).mean(-1, keepdim=True) + 1e-6).sqrt() * model.fc_norm.weight
    features = model.forward_head(model.forward_features(IMAGES), pre_logits=True)
    torch.testing.assert_close(features, expected + model.fc_norm.bias, rtol=0, atol=1e-11)
    assert isinstance(model.encoder.norm, nn.Identity)


def test_positions_and_prefix_tokens_have_no_weight_decay():
    model = make_model(rotary="mixed")
    assert model.no_weight_decay() == {"position.grid", "prefix.registers", "relation.freqs"}
    assert make_model(relative_bias=True, prefix_position="all").no_weight_decay() == {
        "position.grid",
        "prefix.registers",
        "prefix.register_position",
        "relation.table",
        "relation.prefix_table",
    }


def layer_of(matcher, name):
    """Read a group matcher as timm does: return the group of a parameter, which is the stem, a block or the rest."""
    if re.match(matcher["stem"], name):
        return (0,)
    for pattern, ordinal in matcher["blocks"]:
        if found := re.match(pattern, name):
            return (1, *map(int, found.groups()), *(ordinal or ()))
    return (2,)


@pytest.mark.parametrize("changes", [{"rotary": "mixed"}, {"relative_bias": True, "pool": "map"}, {"fc_norm": True}])
def test_group_matcher_orders_parameters_from_stem_to_head(changes):
    model = make_model(embed_norm=True, **changes)
    names = list(dict(model.named_parameters()))
    layers = {name: layer_of(model.group_matcher(), name) for name in names}
    for name, layer in layers.items():
        first = name.split(".")[0]
        if first in ("tokenizer", "position", "prefix", "relation") or name.startswith("encoder.norm_pre"):
            assert layer == (0,), name
        elif name.startswith("encoder.blocks."):
            assert layer == (1, int(name.split(".")[2])), name
        elif first == "head":
            assert layer == (2,), name
        else:
            assert layer == (1, 99999), name
    coarse = {name: layer_of(model.group_matcher(coarse=True), name) for name in names}
    assert coarse == {name: (2,) if layer == (1, 99999) else layer for name, layer in layers.items()}


def test_grad_checkpointing_can_be_switched_on_and_off():
    model = make_model()
    model.set_grad_checkpointing()
    assert model.encoder.grad_checkpointing
    model.set_grad_checkpointing(False)
    assert not model.encoder.grad_checkpointing


def test_unknown_attention_kernel_is_refused():
    with pytest.raises(UnknownNameError, match=r"^kernel=explicid: no such attention kernel; did you mean explicit\?$"):
        make_model().set_attention_kernel("explicid")
