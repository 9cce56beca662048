import re

import pytest
import torch
from torch import nn

from vitreous.errors import ConfigError
from vitreous.model import ModelConfig, build_model, load_model, save_model
from vitreous.model.backbone import block_numbers

SHAPE = {"img_size": (12, 20), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 20, "depth": 4}
IMAGES = torch.randn(2, 3, 12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def noisy(**changes):
    torch.manual_seed(0)
    model = build_model(ModelConfig(**SHAPE | {"num_registers": 2} | changes, num_heads=5)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def after_each_block(model):
    """The tokens after each block, read by hooks on an ordinary forward."""
    taken, handles = [], []
    for block in model.encoder.blocks:
        handles.append(block.register_forward_hook(lambda module, inputs, output: taken.append(output)))
    model(IMAGES)
    for handle in handles:
        handle.remove()
    return taken


def as_map(tokens):
    """Patches `[batch, 15, width]` -> `[batch, width, 3, 5]`, a cell at a time."""
    maps = torch.empty(len(tokens), tokens.shape[2], 3, 5, dtype=tokens.dtype)
    for cell in range(15):
        maps[:, :, cell // 5, cell % 5] = tokens[:, cell]
    return maps


CHOICES = [(None, [0, 1, 2, 3]), (2, [2, 3]), ([0, 2], [0, 2]), ((-1, -3), [1, 3]), ([2, 0, -2], [0, 2])]


@pytest.mark.parametrize(("indices", "expected"), CHOICES)
@pytest.mark.parametrize("norm", [False, True])
@torch.no_grad()
def test_intermediates_are_the_patches_after_the_chosen_blocks_in_their_order(indices, expected, norm):
    model = noisy()
    taken = after_each_block(model)
    wanted = [model.encoder.norm(taken[number]) if norm else taken[number] for number in expected]
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
def test_stopping_early_runs_no_block_after_the_last_one_asked_for():
    model = noisy()
    taken, ran = after_each_block(model), []
    for number, block in enumerate(model.encoder.blocks):
        block.register_forward_hook(lambda module, inputs, output, number=number: ran.append(number))
    tokens, (second,) = model.forward_intermediates(IMAGES, [1], stop_early=True, output_fmt="NLC")
    assert ran == [0, 1]
    torch.testing.assert_close(second, taken[1][:, 3:], rtol=0, atol=0)
    torch.testing.assert_close(tokens, model.encoder.norm(taken[1]), rtol=0, atol=0)


@torch.no_grad()
def test_dinos_name_gives_the_normalised_patches_of_the_last_blocks():
    model = noisy()
    taken = after_each_block(model)
    expected = [model.encoder.norm(each)[:, 3:] for each in taken[-2:]]
    torch.testing.assert_close(model.get_intermediate_layers(IMAGES, 2), expected, rtol=0, atol=0)
    torch.testing.assert_close(model.get_intermediate_layers(IMAGES, [0], norm=False), [taken[0][:, 3:]])


def test_intermediates_of_a_dynamic_model_have_the_images_own_grid():
    model = noisy(dynamic_img_size=True)
    (last,) = model.forward_intermediates(torch.randn(2, 3, 8, 28).double(), 1, intermediates_only=True)
    assert last.shape == (2, 20, 2, 7)


def test_dropped_patches_leave_no_map_but_rows():
    model = noisy(patch_drop_rate=0.4).train()
    with pytest.raises(ConfigError) as caught:
        model.forward_intermediates(IMAGES)
    assert str(caught.value) == (
        "output_fmt=NCHW: patches dropped in training leave holes in a map; use NLC, or model.eval()"
    )
    assert model.forward_intermediates(IMAGES, 1, output_fmt="NLC", intermediates_only=True)[0].shape == (2, 9, 20)


@pytest.mark.parametrize(
    ("indices", "got"), [(0, "0"), (5, "5"), (-1, "-1"), ([1, 4], "4"), ([-5, 0], "-5"), ([], "[]")]
)
def test_a_block_that_is_not_there_is_named(indices, got):
    with pytest.raises(ConfigError) as caught:
        block_numbers(indices, 4)
    assert str(caught.value) == f"indices={got}: no such block; the model has blocks 0 to 3"


def test_another_layout_is_refused():
    with pytest.raises(ConfigError) as caught:
        noisy().forward_intermediates(IMAGES, output_fmt="NHWC")
    assert str(caught.value) == "output_fmt=NHWC: no such layout; use NCHW or NLC"


PARTS = [{}, {"rotary": "mixed"}, {"rotary": "axial"}, {"relative_bias": True}, {"pool": "map"}, {"pool": "sequence"}]


@pytest.mark.parametrize("changes", PARTS)
@torch.no_grad()
def test_pruning_keeps_what_the_intermediates_need_and_nothing_else(changes, tmp_path):
    model = noisy(fc_norm=True, drop_path_rate=0.3, **changes)
    expected = model.forward_intermediates(IMAGES, [0, -3], intermediates_only=True)
    assert model.prune_intermediate_layers([0, -3]) == [0, 1]
    maps = model.forward_intermediates(IMAGES, [0, 1], intermediates_only=True)
    torch.testing.assert_close(maps, expected, rtol=0, atol=0)
    names = set(dict(model.named_parameters()))
    assert not [name for name in names if re.match(r"encoder\.blocks\.[23]|head|fc_norm|pool", name)]
    assert (len(model.encoder.blocks), model.config.depth, model.num_classes) == (2, 2, 0)
    save_model(tmp_path / "model.safetensors", model, {})
    loaded = load_model(tmp_path / "model.safetensors")
    torch.testing.assert_close(loaded(IMAGES), model(IMAGES), rtol=0, atol=0)
    rates = [[block.drop_path.rate for block in each.encoder.blocks] for each in (model, loaded)]
    assert rates == [pytest.approx([0, 0.1]), pytest.approx([0, 0.1])]


@torch.no_grad()
def test_pruning_can_take_the_norm_and_leave_the_head():
    model = noisy()
    second = after_each_block(model)[1]
    assert model.prune_intermediate_layers([1], prune_norm=True, prune_head=False) == [1]
    assert not model.config.final_norm
    torch.testing.assert_close(model.forward_features(IMAGES), second, rtol=0, atol=0)
    assert model(IMAGES).shape == (2, 7)


def test_feature_info_says_width_reduction_and_name_of_each_block():
    model = noisy()
    assert model.feature_info[2] == {"num_chs": 20, "reduction": 4, "module": "encoder.blocks.2"}
    assert len(model.feature_info) == 4
    modules = dict(model.named_modules())
    assert [modules[info["module"]] for info in model.feature_info] == list(model.encoder.blocks)
    assert (model.num_features, model.head_hidden_size, model.embed_dim, model.num_prefix_tokens) == (20, 20, 20, 3)
    assert noisy(pool="token_mean").num_features == 40


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"fc_norm": True, "pool": "mean"}, {"distill_token": True}])
def test_the_forward_is_features_then_head_and_pre_logits_stop_between(changes):
    model = noisy(**changes)
    tokens = model.forward_features(IMAGES)
    features = model.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(features, model.fc_norm(model.pool(tokens)), rtol=0, atol=0)
    assert features.shape == (2, model.num_features)
    torch.testing.assert_close(model.forward_head(tokens), model.head(features), rtol=0, atol=0)
    torch.testing.assert_close(model(IMAGES), model.head(features), rtol=0, atol=1e-12)


@torch.no_grad()
def test_fc_norm_normalises_what_was_pooled():
    model = noisy(fc_norm=True, pool="mean", final_norm=False)
    pooled = model.forward_features(IMAGES)[:, 2:].mean(1)
    centred = pooled - pooled.mean(-1, keepdim=True)
    expected = centred / ((centred**2).mean(-1, keepdim=True) + 1e-6).sqrt() * model.fc_norm.weight
    features = model.forward_head(model.forward_features(IMAGES), pre_logits=True)
    torch.testing.assert_close(features, expected + model.fc_norm.bias, rtol=0, atol=1e-11)
    assert isinstance(model.encoder.norm, nn.Identity)


def test_places_and_tokens_do_not_decay():
    model = noisy(rotary="mixed")
    assert model.no_weight_decay() == {"position.grid", "prefix.registers", "relation.freqs"}
    assert noisy(relative_bias=True, prefix_position="all").no_weight_decay() == {
        "position.grid",
        "prefix.registers",
        "prefix.register_position",
        "relation.table",
        "relation.prefix_table",
    }


def layer_of(matcher, name):
    """How timm reads a group matcher: the stem first, then each block by its number, then what has none."""
    if re.match(matcher["stem"], name):
        return (0,)
    for pattern, ordinal in matcher["blocks"]:
        if found := re.match(pattern, name):
            return (1, *map(int, found.groups()), *(ordinal or ()))
    return (2,)


@pytest.mark.parametrize("changes", [{"rotary": "mixed"}, {"relative_bias": True, "pool": "map"}, {"fc_norm": True}])
def test_every_parameter_has_its_layer_from_stem_to_head(changes):
    model = noisy(embed_norm=True, **changes)
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


def test_grad_checkpointing_is_switched_on_and_off():
    model = noisy()
    model.set_grad_checkpointing()
    assert model.encoder.grad_checkpointing
    model.set_grad_checkpointing(False)
    assert not model.encoder.grad_checkpointing
