"""Models of transformers that we read in part, and files that leave something open."""

import pytest
import torch
import transformers as t
from tests.unit.model.weights.samples import load_model
from torch.testing import assert_close

from vitreous.model import ModelConfig, build_model
from vitreous.model.parts.fixed_position import sincos2d
from vitreous.model.weights import export_weights
from vitreous.model.weights.open import identify
from vitreous.model.weights.reading.files import open_weights
from vitreous.model.weights.table import Hints

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

t.logging.set_verbosity_error()
t.logging.disable_progress_bar()

SIZES = {
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 2,
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
}
HIDDEN = SIZES | {"intermediate_size": 33}
TEXT = {"hidden_size": 10, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 7}
DECODER = {"decoder_hidden_size": 12, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}


def drawn(model, dtype=torch.float32):
    torch.manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().to(dtype)


def images(size=(12, 12), dtype=torch.float32):
    return torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(1)).to(dtype)


def in_order(height=12, width=12):
    """Return noise that keeps the order of ViTMAE's patches."""
    return torch.arange(height * width / 16).expand(2, -1)


def left_out(folder):
    with open_weights(folder) as file:
        return identify(file, Hints(settings=file.settings)).left_out


def clip():
    return t.CLIPModel(t.CLIPConfig(vision_config=HIDDEN, text_config=TEXT, projection_dim=7))


def siglip():
    return t.SiglipModel(t.SiglipConfig(vision_config=HIDDEN, text_config=TEXT))


@pytest.mark.parametrize(("make", "logit"), [(clip, "logit_scale"), (siglip, "logit_bias")], ids=["clip", "siglip"])
def test_image_tower_is_read_and_text_tower_skipped(make, logit, tmp_path):
    theirs = drawn(make())
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs.get_image_features(images())
        # Version 5 wraps the tensor that version 4 returned.
        assert_close(load_model(tmp_path)(images()), getattr(expected, "pooler_output", expected), atol=1e-5, rtol=0)
    reasons = left_out(tmp_path)
    assert reasons["text_model.embeddings.token_embedding.weight"] == "the text tower"
    assert logit in reasons


def test_masked_autoencoder_is_read_without_its_decoder(tmp_path):
    theirs = drawn(
        t.ViTMAEForPreTraining(t.ViTMAEConfig(**HIDDEN, **DECODER, decoder_intermediate_size=8, mask_ratio=0.0))
    )
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    with torch.no_grad():
        expected = theirs.vit(images(), noise=in_order()).last_hidden_state
        assert_close(ours.forward_features(images()), expected, atol=1e-5, rtol=0)
    assert left_out(tmp_path)["decoder.decoder_pos_embed"] == "reconstructs hidden patches in pre-training"
    assert ours.config.num_classes == 0


def test_positions_of_a_masked_autoencoder_are_sines_and_cosines(tmp_path):
    theirs = t.ViTMAEModel(t.ViTMAEConfig(**HIDDEN))
    # Version 5.23 wrongly takes these parameters for loaded ones, and would leave them at zero.
    theirs.embeddings.patch_embeddings.projection._is_hf_initialized = False
    theirs.embeddings.position_embeddings._is_hf_initialized = False
    theirs.embeddings.initialize_weights()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert_close(ours.position.grid.flatten(0, 1).double(), sincos2d((3, 3), 20), atol=1e-6, rtol=0)
    assert not ours.prefix.class_position.any()


@pytest.mark.parametrize(
    "kind", [t.ViTForMaskedImageModeling, t.DeiTModel, t.DeiTForMaskedImageModeling], ids=lambda kind: kind.__name__
)
def test_body_of_a_model_with_another_task_is_read(kind, tmp_path):
    theirs = drawn(kind(kind.config_class(**HIDDEN, encoder_stride=4)))
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs.base_model(images()).last_hidden_state
        assert_close(load_model(tmp_path).forward_features(images()), expected, atol=1e-5, rtol=0)
    assert left_out(tmp_path)


DEFAULTS = {
    "vit": (t.ViTForImageClassification, t.ViTConfig(**HIDDEN)),
    "deit": (t.DeiTForImageClassificationWithTeacher, t.DeiTConfig(**HIDDEN)),
    "dinov2": (t.Dinov2ForImageClassification, t.Dinov2Config(**SIZES)),
    "dinov2 giant": (t.Dinov2Model, t.Dinov2Config(**SIZES, use_swiglu_ffn=True)),
    "dinov2 registers": (t.Dinov2WithRegistersModel, t.Dinov2WithRegistersConfig(**SIZES)),
    "dinov3": (t.DINOv3ViTModel, t.DINOv3ViTConfig(**HIDDEN, num_register_tokens=2)),
    "siglip": (t.SiglipVisionModel, t.SiglipVisionConfig(**HIDDEN)),
    "clip": (t.CLIPVisionModelWithProjection, t.CLIPVisionConfig(**HIDDEN)),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_without_config_json_shapes_and_defaults_are_used(name, tmp_path):
    kind, config = DEFAULTS[name]
    theirs = drawn(kind(config), torch.float64)
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    ours = load_model(tmp_path / "weights.pt", architecture={"num_heads": 5}, img_size=12)
    with torch.no_grad():
        output = theirs(images(dtype=torch.float64))
        expected = next(output[key] for key in ("logits", "image_embeds", "pooler_output") if key in output)
        tolerance = 1e-6 if name == "dinov3" else 1e-10  # their angles are float32
        assert_close(ours(images(dtype=torch.float64)), expected, atol=tolerance, rtol=0)


def test_user_can_give_a_wide_grid_without_config_json(tmp_path):
    theirs = drawn(t.ViTForImageClassification(t.ViTConfig(**HIDDEN | {"image_size": (12, 20)})))
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    ours = load_model(tmp_path / "weights.pt", architecture={"num_heads": 5, "img_size": (12, 20)})
    with torch.no_grad():
        assert_close(ours(images((12, 20))), theirs(images((12, 20))).logits, atol=1e-5, rtol=0)


def test_image_size_is_rounded_down_to_whole_patches(tmp_path):
    theirs = drawn(t.SiglipVisionModel(t.SiglipVisionConfig(**HIDDEN | {"image_size": 15})))
    theirs.save_pretrained(tmp_path)
    ours, large = load_model(tmp_path), images((15, 15))
    assert ours.config.img_size == (12, 12)
    with torch.no_grad():
        expected = theirs(large).pooler_output
        assert_close(ours(large[:, :, :12, :12]), expected, atol=1e-5, rtol=0)


def plain(**changes):
    values = {"img_size": (12, 20), "patch_size": 4, "in_chans": 2, "num_classes": 3, "embed_dim": 20, "depth": 2}
    config = ModelConfig(**{**values, "num_heads": 5, "norm_eps": 1e-3, **changes})
    return drawn(build_model(config), torch.float64)


@pytest.mark.parametrize("position", ["sincos2d", "sincos2d_big_vision", "sinusoidal"])
def test_fixed_positions_are_written_as_a_table(position, tmp_path):
    ours = plain(position=position)
    export_weights(ours, tmp_path, to="hf")
    theirs, report = t.ViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        wide = images((12, 20), torch.float64)
        for logits in (theirs(wide).logits, load_model(tmp_path)(wide)):
            assert_close(logits, ours(wide), atol=1e-10, rtol=0)


def test_encoder_with_fixed_positions_is_written_as_a_masked_autoencoder(tmp_path):
    ours = plain(position="sincos2d", num_classes=0, img_size=(12, 12))
    export_weights(ours, tmp_path, to="hf")
    theirs, report = t.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert isinstance(theirs, t.ViTMAEModel)
    theirs.config.mask_ratio = 0.0
    square = images(dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(square, noise=in_order()).last_hidden_state
    assert_close(ours.forward_features(square), expected, atol=1e-10, rtol=0)


def test_model_without_classes_is_a_classifier_without_labels(tmp_path):
    ours = plain(num_classes=0)
    export_weights(ours, tmp_path, to="hf")
    theirs, report = t.AutoModelForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    wide = images((12, 20), torch.float64)
    with torch.no_grad():
        assert_close(theirs(wide).logits, ours(wide), atol=1e-10, rtol=0)


def test_half_precision_is_kept(tmp_path):
    ours = plain().to(torch.bfloat16)
    export_weights(ours, tmp_path, to="hf")
    theirs = t.AutoModelForImageClassification.from_pretrained(tmp_path)
    assert theirs.dtype == torch.bfloat16
    assert_close(load_model(tmp_path).state_dict(), ours.state_dict(), atol=0, rtol=0)
