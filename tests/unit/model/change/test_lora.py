import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.model.build import build_model
from vitreous.model.change.lora import LowRank, add_lora, merge_lora
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer

SHAPE = {"img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 5, "embed_dim": 20, "num_heads": 5}


@pytest.fixture
def make_model() -> Callable[..., VisionTransformer]:
    def make(**changes: object) -> VisionTransformer:
        config = ModelConfig(**{**SHAPE, "depth": 2, **changes})  # type: ignore[arg-type]
        return build_model(config, generator=torch.Generator().manual_seed(1))

    return make


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(2))


def with_updates(model: VisionTransformer, rank: int = 3, alpha: float = 7.0) -> VisionTransformer:
    """Add low-rank updates that are not zero."""
    generator = torch.Generator().manual_seed(3)
    add_lora(model, rank=rank, alpha=alpha, generator=generator)
    for part in model.modules():
        if isinstance(part, LowRank):
            torch.nn.init.normal_(part.up.weight, std=0.3, generator=generator)
    return model


def test_new_updates_do_not_change_the_logits(make_model: Callable[..., VisionTransformer], images: Tensor):
    model = make_model().eval()
    before = model(images)
    add_lora(model, rank=3, alpha=7.0)
    torch.testing.assert_close(model(images), before, rtol=0, atol=0)


class WithoutFloat64(Tensor):
    """A tensor on a device that has no float64, such as Apple's GPUs."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function is Tensor.double:
            raise TypeError("this device has no float64")
        result = super().__torch_function__(function, types, args, kwargs)
        return result.as_subclass(Tensor) if function is Tensor.cpu else result


def test_updates_are_merged_on_a_device_without_float64():
    update = LowRank(nn.Linear(6, 4), rank=2, alpha=4.0)
    nn.init.ones_(update.up.weight)
    expected = update.weight
    for layer in (update.base, update.up, update.down):
        layer.weight = nn.Parameter(layer.weight.detach().as_subclass(WithoutFloat64))
    torch.testing.assert_close(update.weight.as_subclass(Tensor), expected, rtol=0, atol=0)


@pytest.mark.parametrize("changes", [{}, {"mlp": "gated", "act": "silu"}, {"key_bias": False}, {"locality": True}])
def test_merged_model_is_plain_and_has_the_same_logits(
    make_model: Callable[..., VisionTransformer], images: Tensor, changes: dict[str, object]
):
    plain = make_model(**changes).eval()
    model = with_updates(copy.deepcopy(plain)).eval()
    merged = merge_lora(model)
    assert list(merged.state_dict()) == list(plain.state_dict())
    assert not any(isinstance(part, LowRank) for part in merged.modules())
    assert not torch.allclose(model(images), plain(images), atol=1e-2)
    torch.testing.assert_close(merged(images), model(images), rtol=1e-5, atol=1e-5)


def test_update_is_the_scaled_product_of_the_paper(make_model: Callable[..., VisionTransformer]):
    layer = with_updates(make_model()).encoder.blocks[1].mlp.fc1
    tokens = torch.randn(2, 6, 20, dtype=torch.float64)
    layer = layer.double()
    down, up = (part.weight.detach().numpy() for part in (layer.down, layer.up))
    weight = layer.base.weight.detach().numpy() + 7.0 / 3 * up @ down
    expected = tokens.numpy() @ weight.T + layer.base.bias.detach().numpy()
    torch.testing.assert_close(layer(tokens), torch.from_numpy(expected))


def test_only_updates_and_head_are_trained(make_model: Callable[..., VisionTransformer], images: Tensor):
    model = with_updates(make_model())
    model(images).sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert trained == {"head.weight", "head.bias"} | {
        f"encoder.blocks.{block}.{layer}.{part}.weight"
        for block in (0, 1)
        for layer in layers
        for part in ("down", "up")
    }


def test_model_without_updates_is_returned_unchanged(make_model: Callable[..., VisionTransformer]):
    model = make_model()
    assert merge_lora(model) is model


@pytest.mark.parametrize("rank", [0, 21])
def test_rank_out_of_range_is_refused(make_model: Callable[..., VisionTransformer], rank: int):
    model = make_model()
    with pytest.raises(ConfigError) as caught:
        add_lora(model, rank=rank, alpha=7.0)
    assert str(caught.value) == (
        f"train.lora_rank={rank}: must be from 1 to 20, the width of the narrowest matrix; 8 is usual"
    )
    assert all(parameter.requires_grad for parameter in model.parameters())
