import sys
import types

import pytest
import torch

from vitreous.errors import ConfigError, MissingDependencyError, UnknownNameError
from vitreous.model import VisionTransformer
from vitreous.model.timm_registry import register


def build(make, name, pretrained, pretrained_cfg=None, cache_dir=None, feature_cfg=None, **arguments):
    """Build a model as timm does, without its configuration of weights."""
    return make(**arguments)


@pytest.fixture
def registry(monkeypatch):
    """Replace timm's registry by a dictionary from name to function."""
    entries = {}
    models = types.ModuleType("timm.models")
    models.is_model = lambda name: name in entries
    models.register_model = lambda function: entries.setdefault(function.__name__, function)
    models.register_notrace_module = lambda part: None
    models.build_model_with_cfg = build
    monkeypatch.setitem(sys.modules, "timm", types.ModuleType("timm"))
    monkeypatch.setitem(sys.modules, "timm.models", models)
    return entries


def test_every_name_is_registered_once(registry):
    names = register()
    made = dict(registry)
    assert register() == names
    assert registry == made
    assert set(registry) == set(names)
    assert {"vitreous_vit_pico_patch16_224", "vitreous_deit3_base_patch16_384"} <= set(names)


def test_entry_builds_a_model_from_timms_arguments(registry):
    register()
    make = registry["vitreous_vit_tiny_patch16_224"]
    from_timm = {"pretrained_cfg": None, "cache_dir": None, "drop_rate": 0.0}
    model = make(pretrained=False, num_classes=5, img_size=32, pos_drop_rate=0.1, global_pool="avg", **from_timm)
    assert isinstance(model, VisionTransformer)
    assert (model.config.pool, model.config.pos_drop_rate, model.config.has_class_token) == ("mean", 0.1, True)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_class_token_that_the_user_leaves_out_is_left_out(registry):
    register()
    model = registry["vitreous_vit_tiny_patch16_224"](num_classes=5, img_size=32, global_pool="avg", class_token=False)
    assert (model.config.pool, model.num_prefix_tokens) == ("mean", 0)


def test_timm_finds_the_module_of_an_entry(registry):
    register()
    make = registry["vitreous_vit_tiny_patch16_224"]
    assert make.__module__ in sys.modules


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (
            {"pretrained": True},
            ConfigError,
            "pretrained=True: vitreous_vit_tiny_patch16_224 has no weights of its own; open a file of them with "
            "vitreous.load_model, timm's included",
        ),
        (
            {"drop_rate": 0.3},
            ConfigError,
            "drop_rate=0.3: timm's dropout before the head, which these models do not have; use drop_path_rate or "
            "proj_drop_rate",
        ),
        (
            {"global_pool": ""},
            UnknownNameError,
            "model.pool=: must be one of token, mean, max, token_mean, map, sequence; the default is token",
        ),
        (
            {"drop_pathrate": 0.2},
            UnknownNameError,
            "drop_pathrate=0.2: no such field of ModelConfig; did you mean drop_path_rate?",
        ),
    ],
)
def test_unsupported_arguments_are_errors(registry, arguments, kind, text):
    register()
    with pytest.raises(kind) as caught:
        registry["vitreous_vit_tiny_patch16_224"](**arguments)
    assert str(caught.value) == text


def test_missing_timm_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.models", None)
    with pytest.raises(MissingDependencyError) as caught:
        register()
    assert str(caught.value) == "timm=None: is not installed, and so has no registry; pip install timm"
