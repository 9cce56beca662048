"""`Backbone.reset_classifier`: a new head, and a new pool if requested, on the same weights."""

import pytest
import torch
from tests.unit.model.builders import IMAGES, make_model

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model import load_model, save_model
from vitreous.model.parts.head import DistilledHead
from vitreous.model.parts.pool import AttentionPool, MaxPool, MeanPool, TokenMeanPool

POOLS = {"avg": MeanPool, "mean": MeanPool, "max": MaxPool, "token_mean": TokenMeanPool}


@pytest.mark.parametrize("pool", [None, *POOLS])
def test_new_head_keeps_all_other_weights_and_the_model_saves_and_loads(pool, tmp_path):
    model = make_model(num_registers=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("head")}
    model.reset_classifier(11, pool)
    assert model.get_classifier() is model.head
    assert model(IMAGES).shape == (2, 11)
    assert (model.num_classes, model.config.num_classes, model.config.num_prefix_tokens) == (11, 11, 3)
    assert model.head.weight.dtype == torch.float64
    assert not model.head.training
    for name, tensor in before.items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=0)
    if pool:
        assert type(model.pool) is POOLS[pool]
    save_model(tmp_path / "model.safetensors", model, {})
    torch.testing.assert_close(
        load_model(tmp_path / "model.safetensors", dtype=None)(IMAGES), model(IMAGES), rtol=0, atol=0
    )


def test_new_head_is_drawn_by_the_scheme_of_the_model():
    model = make_model(init="jax_nlhb", distill_token=True)
    model.reset_classifier(11)
    assert isinstance(model.head, DistilledHead)
    torch.testing.assert_close(model.head.teacher.weight, torch.zeros(11, 20).double(), rtol=0, atol=0)
    torch.testing.assert_close(model.head.label.bias, torch.full((11,), -torch.log(torch.tensor(11.0))).double())


def test_zero_classes_remove_the_head():
    model = make_model()
    features = model.forward_head(model.forward_features(IMAGES), pre_logits=True)
    model.reset_classifier(0)
    torch.testing.assert_close(model(IMAGES), features, rtol=0, atol=1e-5)
    assert isinstance(model.head, torch.nn.Identity)


def test_pool_with_weights_can_be_replaced_but_not_added():
    model = make_model(pool="map")
    model.reset_classifier(5)
    assert isinstance(model.pool, AttentionPool)
    model.reset_classifier(5, "avg")
    assert isinstance(model.pool, MeanPool)
    for pool in ("map", "sequence"):
        with pytest.raises(ConfigError) as caught:
            model.reset_classifier(5, pool)
        assert str(caught.value) == f"global_pool={pool}: has weights of its own; create the model with it"


@pytest.mark.parametrize(
    ("changes", "pool", "message"),
    [
        (
            {"pool": "mean"},
            "token",
            "model.pool=token: needs a class token; leave model.class_token out, or set it to true",
        ),
        (
            {"distill_token": True},
            "avg",
            "model.distill_token=True: needs the class token as well, which model.pool=mean does not read; use "
            "model.pool=token",
        ),
        (
            {"fc_norm": True},
            "token_mean",
            "global_pool=token_mean: gives 40 features, model.fc_norm is made for 20; create the model with it",
        ),
    ],
)
def test_pool_that_does_not_fit_is_an_error_and_changes_nothing(changes, pool, message):
    model = make_model(**changes)
    logits, config = model(IMAGES), model.config
    with pytest.raises(ConfigError) as caught:
        model.reset_classifier(11, pool)
    assert str(caught.value) == message
    assert model.config == config
    torch.testing.assert_close(model(IMAGES), logits, rtol=0, atol=0)


def test_unknown_pool_suggests_the_nearest_name():
    with pytest.raises(UnknownNameError) as caught:
        make_model().reset_classifier(11, "meen")
    assert str(caught.value) == (
        "model.pool=meen: must be one of token, mean, max, token_mean, map, sequence; did you mean mean?"
    )


def test_features_without_a_pool_are_refused():
    model = make_model()
    with pytest.raises(UnknownNameError, match=r"^model\.pool=: must be one of token, mean, max"):
        model.reset_classifier(0, "")
    assert model.num_classes == make_model().num_classes
