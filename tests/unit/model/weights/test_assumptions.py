"""What no tensor shows is given, asked for, or listed; it is never assumed silently."""

import dataclasses
import json
import warnings

import pytest
import torch
from tests.unit.model.weights.samples import HEADS, PLAIN, noisy, plain_state, write_as

from vitreous.errors import AssumptionWarning, OpenQuestionError
from vitreous.model import ModelConfig, export_weights, load_model
from vitreous.model.weights.open import identify
from vitreous.model.weights.reading.files import open_weights
from vitreous.model.weights.shapes import side_by_side
from vitreous.model.weights.table import Hints

WIDE = ModelConfig(
    img_size=(8, 32), patch_size=4, in_chans=3, num_classes=7, embed_dim=192, depth=1, num_heads=3, norm_eps=1e-6
)


def exported(folder, config, to):
    return export_weights(noisy(config), folder / f"model{'.npz' if to == 'npz' else '.safetensors'}", to=to)


def assumed(path, **hints):
    with open_weights(path) as file:
        return identify(file, Hints(settings=file.settings, **hints)).assumed


def message_of(path, **options):
    with pytest.warns(AssumptionWarning) as caught:
        load_model(path, **options)
    assert len(caught) == 1
    assert str(caught[0].message).isprintable()
    return str(caught[0].message)


@pytest.mark.parametrize("to", ["timm", "torchvision", "npz", "vit-pytorch", "open-clip"])
def test_rectangular_grid_of_a_square_number_is_never_silently_square(tmp_path, to):
    bias = {"qkv_bias": False, "stem": "normed", "norm_eps": 1e-5} if to == "vit-pytorch" else {}
    bias |= {"act": "gelu_tanh"} if to == "npz" else {}
    bias |= {"patch_bias": False, "embed_norm": True, "norm_eps": 1e-5, "num_classes": 0} if to == "open-clip" else {}
    config = ModelConfig.from_dict(WIDE.as_dict() | bias)
    path = exported(tmp_path, config, to)
    architecture = {"num_heads": 3}
    assert "img_size=16x16 (a grid of 4x4 patches, not 8x2 or 2x8)" in message_of(path, architecture=architecture)
    answered = {**architecture, **{key: getattr(config, key) for key in assumed(path, architecture=architecture)}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_model(path, architecture=answered)
    images = torch.randn(2, 3, 8, 32)
    torch.testing.assert_close(loaded(images), noisy(config)(images))


def test_warning_lists_every_assumption_and_how_to_replace_it(tmp_path):
    path = write_as("pt", tmp_path, plain_state())
    assert message_of(path, architecture=HEADS) == (
        f"{path}: assumes act=gelu, norm_eps=1e-06, img_size=12x12 (a grid of 3x3 patches, not 9x1 or 1x9), and the "
        "usual order of class token, queries, keys and values, because no tensor shows them; set "
        "architecture={KEY: VALUE}, or --architecture.KEY VALUE, if that is wrong"
    )


@pytest.mark.parametrize("key", ["act", "norm_eps", "img_size"])
def test_given_answers_are_no_longer_listed(tmp_path, key):
    path = write_as("pt", tmp_path, plain_state())
    given = {"act": "relu", "norm_eps": 1e-5, "img_size": (12, 12)}
    assert assumed(path, architecture={**HEADS, key: given[key]}).keys() == given.keys() - {key}


@pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")
@pytest.mark.parametrize("to", ["timm", "torchvision", "npz", "open-clip", "hf"])
def test_another_pool_leaves_the_class_token_in_place(tmp_path, to):
    changes = {"act": "gelu_tanh"} if to == "npz" else {}
    changes |= {"patch_bias": False, "norm_eps": 1e-5, "num_classes": 0} if to == "open-clip" else {}
    config = ModelConfig.from_dict(WIDE.as_dict() | {"img_size": [16, 16]} | changes)
    path = export_weights(noisy(config), tmp_path / "m", to=to) if to == "hf" else exported(tmp_path, config, to)
    loaded = load_model(path, architecture={"num_heads": 3, "pool": "mean"})
    pooled = noisy(dataclasses.replace(config, pool="mean", class_token=True))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images), pooled(images))


def test_name_and_description_answer_everything(tmp_path):
    config = ModelConfig.from_dict(WIDE.as_dict() | {"depth": 12, "img_size": [32, 32], "patch_size": 16})
    path = exported(tmp_path, config, "timm")
    assert set(assumed(path)) >= {"num_heads", "act", "norm_eps", "pool", "img_size"}
    assert assumed(path, name="vit_tiny_patch16_224") == {}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224"}))
    assert assumed(path) == {}


def test_question_names_its_key_and_a_possible_answer(tmp_path):
    path = write_as("pt", tmp_path, plain_state())
    with pytest.raises(OpenQuestionError) as caught:
        load_model(path)
    assert (caught.value.key, caught.value.guess) == ("num_heads", 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")
def test_model_of_any_precision_takes_float32_images(tmp_path, dtype):
    path = write_as("pt", tmp_path, plain_state(noisy(PLAIN, dtype=dtype)))
    images = torch.randn(2, 3, 12, 12)
    loaded = load_model(path, architecture=HEADS)
    torch.testing.assert_close(loaded(images), noisy(PLAIN, dtype=dtype).float()(images))
    assert load_model(path, architecture=HEADS, dtype=None).head.weight.dtype == dtype


@pytest.mark.parametrize(
    ("count", "grid", "oblong"), [(16, (4, 4), (2, 8)), (12, (3, 4), (3, 4)), (7, (1, 7), (1, 7)), (1, (1, 1), (1, 1))]
)
def test_grids_of_a_number_of_patches(count, grid, oblong):
    assert side_by_side(count) == grid
    assert side_by_side(count, square=False) == oblong
