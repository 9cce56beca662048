"""Meta's own DINOv3 files: the tokens of transformers, and the same file when written back."""

import pytest
import torch
import transformers as t
from tests.unit.model.weights.samples import load_model
from torch.testing import assert_close

from vitreous.errors import ConfigError, DamagedFileError
from vitreous.model import ModelConfig, build_model
from vitreous.model.weights import export_weights

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

t.logging.set_verbosity_error()

SIZES = {"image_size": 224, "patch_size": 4, "num_channels": 2, "hidden_size": 40, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 5, "intermediate_size": 28, "layer_norm_eps": 1e-5, "rope_theta": 100.0}
SIZES |= {"num_register_tokens": 3}
FAMILIES = {
    "small": t.DINOv3ViTConfig(**SIZES),
    "plus": t.DINOv3ViTConfig(**SIZES, use_gated_mlp=True, hidden_act="silu"),
    "7b": t.DINOv3ViTConfig(**SIZES, use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False),
    "key bias": t.DINOv3ViTConfig(**SIZES, key_bias=True),
}


def random_model(family):
    torch.manual_seed(7)
    model = t.DINOv3ViTModel(FAMILIES[family]).eval().double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.zeros_(model.embeddings.mask_token)
    return model


def meta_file(theirs, folder):
    """Write the weights under the names of facebookresearch/dinov3."""
    embeddings, width = theirs.embeddings, theirs.config.hidden_size
    head_dim = width // theirs.config.num_attention_heads
    state = {"cls_token": embeddings.cls_token, "storage_tokens": embeddings.register_tokens,
             "mask_token": embeddings.mask_token[0],
             "rope_embed.periods": 100 ** (2 * torch.arange(head_dim // 4) / (head_dim // 2))}  # fmt: skip
    modules = {"patch_embed.proj": embeddings.patch_embeddings, "norm": theirs.norm}
    for number, block in enumerate(theirs.layer if hasattr(theirs, "layer") else theirs.model.layer):
        root, attention, mlp = f"blocks.{number}", block.attention, block.mlp
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        state[f"{root}.attn.qkv.weight"] = torch.cat([part.weight for part in parts])
        if parts[0].bias is not None:
            # What the mask hides is never read, so it can have any value.
            hidden = torch.full((width,), 3.0) if parts[1].bias is None else parts[1].bias
            state[f"{root}.attn.qkv.bias"] = torch.cat([parts[0].bias, hidden, parts[2].bias])
            if parts[1].bias is None:
                state[f"{root}.attn.qkv.bias_mask"] = torch.cat(
                    [torch.ones(width), torch.zeros(width), torch.ones(width)]
                )
        state[f"{root}.ls1.gamma"] = block.layer_scale1.lambda1
        state[f"{root}.ls2.gamma"] = block.layer_scale2.lambda1
        modules |= {f"{root}.norm1": block.norm1, f"{root}.norm2": block.norm2, f"{root}.attn.proj": attention.o_proj}
        if hasattr(mlp, "gate_proj"):
            modules |= {f"{root}.mlp.w1": mlp.gate_proj, f"{root}.mlp.w2": mlp.up_proj, f"{root}.mlp.w3": mlp.down_proj}
        else:
            modules |= {f"{root}.mlp.fc1": mlp.up_proj, f"{root}.mlp.fc2": mlp.down_proj}
    for name, module in modules.items():
        state |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    path = folder / "dinov3_pretrain.pth"
    torch.save({name: tensor.detach().double() for name, tensor in state.items()}, path)
    return path


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (12, 20)])
@pytest.mark.parametrize("family", FAMILIES)
def test_meta_file_gives_the_tokens_of_transformers(family, size, tmp_path):
    theirs = random_model(family)
    ours = load_model(meta_file(theirs, tmp_path))
    assert (ours.config.num_heads, ours.config.img_size) == (5, (224, 224))
    images = torch.randn(2, 2, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(images)  # computes angles in float32
        assert_close(ours.forward_features(images), expected.last_hidden_state, rtol=0, atol=1e-5)
        assert_close(ours(images), expected.pooler_output, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_written_file_has_the_names_and_values_of_the_read_one(family, tmp_path):
    path = meta_file(random_model(family), tmp_path)
    export_weights(load_model(path), tmp_path / "back.pth", to="meta")
    before, after = torch.load(path), torch.load(tmp_path / "back.pth")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if name.endswith("qkv.bias"):
            tensor = tensor * before.get(f"{name}_mask", 1)
        assert_close(after[name], tensor, rtol=1e-6, atol=0)


def test_separate_norm_of_the_class_token_is_refused(tmp_path):
    path = meta_file(random_model("small"), tmp_path)
    norm = {"cls_norm.weight": torch.ones(40), "cls_norm.bias": torch.zeros(40)}
    torch.save(torch.load(path) | norm, path)
    with pytest.raises(DamagedFileError, match=r"unexpected: cls_norm\.bias, cls_norm\.weight"):
        load_model(path)
    local = {f"local_{name}": tensor for name, tensor in norm.items()}
    torch.save({name: tensor for name, tensor in torch.load(path).items() if name not in norm} | local, path)
    assert load_model(path).config.num_registers == 3


def test_other_rotary_positions_are_refused(tmp_path):
    config = ModelConfig(img_size=(16, 16), patch_size=4, in_chans=2, num_classes=0, embed_dim=40, depth=1, num_heads=5,
                         position="none", rotary="axial", norm_eps=1e-5)  # fmt: skip
    with pytest.raises(ConfigError, match=r"dinov3 cannot hold model\.rotary=axial"):
        export_weights(build_model(config), tmp_path / "m.pth", to="meta")
