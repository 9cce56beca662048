"""Files of transformers opened here, and ours opened there: equal tokens, features, logits, gradients and bits."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import transformers as t
from safetensors.torch import load_file
from tests.unit.model.weights.samples import load_model
from torch.testing import assert_close

from vitreous.model.weights import export_weights
from vitreous.model.weights.reading.files import canonical_names
from vitreous.model.weights.subtree import recognize
from vitreous.model.weights.table import read_tensors

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

t.logging.set_verbosity_error()
t.logging.disable_progress_bar()

WIDE, SQUARE, OTHER = (12, 20), 16, (24, 12)
TEXT = {"hidden_size": 10, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 7}
SIZES = {"patch_size": 4, "num_channels": 2, "hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 5}
HIDDEN = SIZES | {"layer_norm_eps": 1e-3, "intermediate_size": 33}
RATIO = SIZES | {"layer_norm_eps": 1e-3, "mlp_ratio": 3}
DINOV3 = HIDDEN | {"layerscale_value": 0.5, "rope_theta": 37.0}


@dataclass(frozen=True)
class Case:
    """A class of transformers, its configuration, and a function from tokens to features."""

    kind: type
    config: type
    values: dict
    features: Callable

    def make(self, size):
        if self.config in (t.CLIPConfig, t.SiglipConfig):
            made = self.config(vision_config={"image_size": size, **self.values}, text_config=TEXT)
            made.num_labels = 3
            return self.kind(made)
        return self.kind(self.config(image_size=size, **self.values))


def first(tokens, pooled):
    return tokens[:, 0]


def pooled_output(tokens, pooled):
    return pooled


def first_and_mean_after(count):
    return lambda tokens, pooled: torch.cat([tokens[:, 0], tokens[:, count:].mean(dim=1)], dim=1)


def mean_after(count):
    return lambda tokens, pooled: tokens[:, count:].mean(dim=1)


SWIGLU = {"use_swiglu_ffn": True}
LABELS = {"num_labels": 3}
CASES = {
    "vit": Case(t.ViTForImageClassification, t.ViTConfig, HIDDEN | LABELS | {"hidden_act": "relu"}, first),
    "vit without bias": Case(
        t.ViTForImageClassification, t.ViTConfig, HIDDEN | LABELS | {"qkv_bias": False, "head_dim": 6}, first
    ),
    "vit bare": Case(t.ViTModel, t.ViTConfig, HIDDEN | {"hidden_act": "gelu_new"}, first),
    "mae": Case(t.ViTMAEModel, t.ViTMAEConfig, HIDDEN | {"hidden_act": "silu", "mask_ratio": 0.0}, first),
    "deit": Case(t.DeiTForImageClassification, t.DeiTConfig, HIDDEN | LABELS | {"hidden_act": "silu"}, first),
    "deit distilled": Case(
        t.DeiTForImageClassificationWithTeacher,
        t.DeiTConfig,
        HIDDEN | LABELS | {"hidden_act": "relu"},
        lambda tokens, pooled: tokens[:, :2].flatten(1),
    ),
    "dinov2": Case(t.Dinov2ForImageClassification, t.Dinov2Config, RATIO | LABELS, first_and_mean_after(1)),
    "dinov2 bare": Case(t.Dinov2Model, t.Dinov2Config, RATIO | {"use_mask_token": False}, first),
    "dinov2 giant": Case(t.Dinov2Model, t.Dinov2Config, RATIO | SWIGLU, first),
    "dinov2 registers": Case(
        t.Dinov2WithRegistersForImageClassification,
        t.Dinov2WithRegistersConfig,
        RATIO | LABELS | {"num_register_tokens": 3, "hidden_act": "relu"},
        first_and_mean_after(4),
    ),
    "dinov2 registers giant": Case(
        t.Dinov2WithRegistersModel, t.Dinov2WithRegistersConfig, RATIO | SWIGLU | {"num_register_tokens": 3}, first
    ),
    "dinov3": Case(t.DINOv3ViTModel, t.DINOv3ViTConfig, DINOV3 | {"num_register_tokens": 3}, first),
    "dinov3 gated": Case(
        t.DINOv3ViTModel,
        t.DINOv3ViTConfig,
        DINOV3 | {"use_gated_mlp": True, "hidden_act": "silu", "key_bias": True, "proj_bias": False},
        first,
    ),
    "dinov3 without bias": Case(
        t.DINOv3ViTModel,
        t.DINOv3ViTConfig,
        DINOV3 | {"query_bias": False, "value_bias": False, "mlp_bias": False},
        first,
    ),
    "siglip": Case(t.SiglipVisionModel, t.SiglipVisionConfig, HIDDEN, pooled_output),
    "siglip headless": Case(
        t.SiglipVisionModel, t.SiglipVisionConfig, HIDDEN | {"vision_use_head": False}, mean_after(0)
    ),
    "siglip classifier": Case(t.SiglipForImageClassification, t.SiglipConfig, HIDDEN, mean_after(0)),
    "clip": Case(t.CLIPVisionModel, t.CLIPVisionConfig, HIDDEN, pooled_output),
    "clip projected": Case(
        t.CLIPVisionModelWithProjection, t.CLIPVisionConfig, HIDDEN | {"projection_dim": 7}, pooled_output
    ),
    "clip classifier": Case(t.CLIPForImageClassification, t.CLIPConfig, HIDDEN | {"hidden_act": "gelu"}, mean_after(1)),
}
FLOAT32_INSIDE = [name for name in CASES if name.startswith("dinov3")]
"""transformers computes the angles of DINOv3 in float32, which limits the agreement in float64."""


def random_model(name, size=None, dtype=torch.float32):
    """Build a model of transformers with random parameters, and a wide image size if the family supports it."""
    torch.manual_seed(7)
    model = CASES[name].make(size or (SQUARE if name.startswith(("dinov2", "siglip", "clip")) else WIDE)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.to(dtype)


def random_images(size, dtype=torch.float32):
    return torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(1)).to(dtype)


def their_outputs(name, theirs, images, **options):
    """Return tokens after the last norm, features and logits."""
    inner = theirs if name.startswith("dinov3") else theirs.base_model  # its `base_model` has only the blocks
    tower = getattr(theirs, "vision_model", inner)
    if isinstance(tower, t.ViTMAEModel):
        # This noise keeps the order of the patches.
        options = options | {"noise": torch.arange(images[0, 0].numel() / 16).expand(2, -1)}
    output = tower(images, **options)
    tokens = output.last_hidden_state
    features = CASES[name].features(tokens, getattr(output, "pooler_output", None))
    whole = output if tower is theirs else theirs(images, **options)
    logits = getattr(whole, "logits", getattr(whole, "image_embeds", features))
    # The tower of CLIP returns tokens before the last norm, and features after it.
    return tower.post_layernorm(tokens) if name in ("clip", "clip projected") else tokens, features, logits


def our_outputs(ours, images):
    tokens = ours.forward_features(images)
    return tokens, ours.forward_head(tokens, pre_logits=True), ours(images)


def agree(got, expected, name, dtype=torch.float32):
    atol = 1e-5 if dtype == torch.float32 else 1e-7 if name in FLOAT32_INSIDE else 1e-10
    for ours, theirs in zip(got, expected, strict=True):
        assert theirs.abs().max() > 0.01
        assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_their_saved_model_gives_equal_outputs_here(name, dtype, tmp_path):
    theirs = random_model(name, dtype=dtype)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    images = random_images(ours.config.img_size, dtype)
    with torch.no_grad():
        agree(our_outputs(ours, images), their_outputs(name, theirs, images), name, dtype)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_equal(name, tmp_path):
    dtype = torch.float64
    theirs = random_model(name, dtype=dtype)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    our_images = random_images(ours.config.img_size, dtype).requires_grad_()
    their_images = our_images.detach().clone().requires_grad_()
    theirs.requires_grad_()
    (ours(our_images) ** 2).sum().backward()
    (their_outputs(name, theirs, their_images)[2] ** 2).sum().backward()
    grads = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in theirs.named_parameters()}
    format_ = recognize({name: tuple(grad.shape) for name, grad in grads.items()})
    names = canonical_names(grads, format_.renames)
    expected = read_tensors(format_.rows(ours.config), {name: grads[stored] for name, stored in names.items()})
    if name == "clip projected":
        expected.pop("head.bias")  # their projection has no bias
    scale = max(grad.abs().max() for grad in expected.values())
    tolerance = (1e-6 if name in FLOAT32_INSIDE else 1e-11) * scale
    assert_close(our_images.grad, their_images.grad, atol=tolerance, rtol=0)
    for parameter, grad in expected.items():
        assert_close(ours.get_parameter(parameter).grad, grad, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_outputs_for_other_image_sizes_are_equal(name, tmp_path):
    theirs = random_model(name, size=SQUARE)
    theirs.save_pretrained(tmp_path)
    images = random_images(OTHER)
    with torch.no_grad():
        options = {} if name.startswith("dino") else {"interpolate_pos_encoding": True}
        expected = their_outputs(name, theirs, images, **options)
        agree(our_outputs(load_model(tmp_path, img_size=OTHER), images), expected, name)
        if load_model(tmp_path).config.dynamic_img_size:
            agree(our_outputs(load_model(tmp_path), images), expected, name)


@pytest.mark.parametrize("name", CASES)
def test_shards_and_names_in_memory_give_the_same_model(name, tmp_path):
    theirs = random_model(name)
    theirs.save_pretrained(tmp_path / "one")
    theirs.save_pretrained(tmp_path / "several", max_shard_size="20KB")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 1
    theirs.config.save_pretrained(tmp_path / "memory")
    torch.save(theirs.state_dict(), tmp_path / "memory" / "pytorch_model.bin")
    expected = load_model(tmp_path / "one").state_dict()
    for folder in ("several", "memory"):
        assert_close(load_model(tmp_path / folder).state_dict(), expected, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_our_written_model_gives_equal_outputs_there(name, dtype, tmp_path):
    random_model(name, dtype=dtype).save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    export_weights(ours, tmp_path / "ours", to="hf")
    described = json.loads((tmp_path / "ours" / "config.json").read_text())
    kind = getattr(t, described["architectures"][0])
    theirs, report = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    images = random_images(ours.config.img_size, dtype)
    with torch.no_grad():
        agree(our_outputs(ours, images), their_outputs(name, theirs.eval(), images), name, dtype)
    if ours.config.num_classes and name != "clip projected":
        assert type(t.AutoModelForImageClassification.from_pretrained(tmp_path / "ours")) is type(theirs)


@pytest.mark.parametrize("name", CASES)
def test_round_trip_keeps_every_bit(name, tmp_path):
    random_model(name).save_pretrained(tmp_path / "first")
    ours = load_model(tmp_path / "first")
    export_weights(ours, tmp_path / "second", to="hf")
    again = load_model(tmp_path / "second")
    assert again.config.as_dict() | {"init": ""} == ours.config.as_dict() | {"init": ""}
    assert_close(again.state_dict(), ours.state_dict(), atol=0, rtol=0)
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("first", "second"))
    format_ = recognize({name: tuple(tensor.shape) for name, tensor in after.items()})
    unread = [*format_.skipped, "post_layernorm" if name == "clip classifier" else "mask_token"]
    for name_after, name_before in canonical_names(before, format_.renames).items():
        if not any(re.search(pattern, name_after) for pattern in unread):
            assert_close(after[name_after], before[name_before], atol=0, rtol=0)
