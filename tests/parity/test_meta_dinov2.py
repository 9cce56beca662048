"""Meta's own DINOv2 files: the tokens of transformers at every image size, and the same file when written back."""

import pytest
import torch
import transformers as t
from tests.unit.model.weights.samples import load_model
from torch.nn import functional as F
from torch.testing import assert_close

from vitreous.errors import ConfigError, DamagedFileError
from vitreous.model import ModelConfig, build_model, resize_model
from vitreous.model.weights import export_weights

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

t.logging.set_verbosity_error()

SIZES = {"image_size": 16, "patch_size": 4, "num_channels": 2, "hidden_size": 20, "num_hidden_layers": 4}
SIZES |= {"num_attention_heads": 5, "layer_norm_eps": 1e-6}
HEADS = {"num_heads": 5}
GATED = {"use_swiglu_ffn": True}
FAMILIES = {
    "plain": (t.Dinov2Model, t.Dinov2Config(**SIZES, mlp_ratio=3)),
    "giant": (t.Dinov2Model, t.Dinov2Config(**SIZES, mlp_ratio=3, **GATED)),
    "registers": (
        t.Dinov2WithRegistersModel,
        t.Dinov2WithRegistersConfig(**SIZES, mlp_ratio=3, num_register_tokens=3),
    ),
    "registers giant": (
        t.Dinov2WithRegistersModel,
        t.Dinov2WithRegistersConfig(**SIZES, mlp_ratio=3, num_register_tokens=3, **GATED),
    ),
}
OTHERS = [(8, 8), (12, 12), (28, 28), (24, 12), (12, 40)]


def random_model(family):
    kind, config = FAMILIES[family]
    torch.manual_seed(7)
    model = kind(config).eval().double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.zeros_(model.embeddings.mask_token)
    return model


def meta_file(theirs, folder, *, chunks=False):
    """Write the weights under the names of facebookresearch/dinov2, whose training code numbers chunks and blocks."""
    embeddings, state = theirs.embeddings, {}
    state["cls_token"], state["pos_embed"] = embeddings.cls_token, embeddings.position_embeddings
    state["mask_token"] = embeddings.mask_token
    if hasattr(embeddings, "register_tokens"):
        state["register_tokens"] = embeddings.register_tokens
    modules = {"patch_embed.proj": embeddings.patch_embeddings.projection, "norm": theirs.layernorm}
    for number, block in enumerate(theirs.layers if hasattr(theirs, "layers") else theirs.encoder.layer):
        root = f"blocks.{number // 2}.{number}" if chunks else f"blocks.{number}"
        inner = getattr(block.attention, "attention", block.attention)
        parts = [getattr(inner, f"{part}_proj", getattr(inner, part, None)) for part in ("q", "k", "v")]
        for kind in ("weight", "bias"):
            state[f"{root}.attn.qkv.{kind}"] = torch.cat([getattr(part, kind) for part in parts])
        output = inner.o_proj if hasattr(inner, "o_proj") else block.attention.output.dense
        modules |= {f"{root}.norm1": block.norm1, f"{root}.norm2": block.norm2, f"{root}.attn.proj": output}
        state[f"{root}.ls1.gamma"] = block.layer_scale1.lambda1
        state[f"{root}.ls2.gamma"] = block.layer_scale2.lambda1
        if hasattr(block.mlp, "fc1"):
            modules |= {f"{root}.mlp.fc1": block.mlp.fc1, f"{root}.mlp.fc2": block.mlp.fc2}
        else:
            for kind in ("weight", "bias"):
                both = [getattr(getattr(block.mlp, name), kind) for name in ("gate_proj", "up_proj")]
                state[f"{root}.mlp.w12.{kind}"] = torch.cat(both)
            modules[f"{root}.mlp.w3"] = block.mlp.down_proj
    for name, module in modules.items():
        state |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    path = folder / "dinov2_pretrain.pth"
    torch.save({name: tensor.detach().clone() for name, tensor in state.items()}, path)
    return path


def resize_as_meta(self, tokens, height, width):
    """Do what `interpolate_pos_encoding` of models without registers does in facebookresearch/dinov2."""
    side, patch = round((self.position_embeddings.shape[1] - 1) ** 0.5), 4
    if (height, width) == (side * patch, side * patch):
        return self.position_embeddings
    grid = self.position_embeddings[0, 1:].T.reshape(1, -1, side, side)
    scale = ((height // patch + 0.1) / side, (width // patch + 0.1) / side)
    resized = F.interpolate(grid, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
    return torch.cat([self.position_embeddings[:, :1], resized], dim=1)


def images_of(size):
    return torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def meta_positions(monkeypatch):
    monkeypatch.setattr("transformers.models.dinov2.modeling_dinov2.Dinov2Embeddings.interpolate_pos_encoding",
                        resize_as_meta)  # fmt: skip


@pytest.mark.parametrize("chunks", [False, True], ids=["blocks", "chunks"])
@pytest.mark.parametrize("family", FAMILIES)
def test_meta_file_gives_the_tokens_of_transformers(family, chunks, tmp_path):
    theirs = random_model(family)
    ours = load_model(meta_file(theirs, tmp_path, chunks=chunks), architecture=HEADS)
    assert ours.config.position_resize == ("timm" if "registers" in family else "dinov2")
    with torch.no_grad():
        expected = theirs(images_of((16, 16)))
        assert_close(ours.forward_features(images_of((16, 16))), expected.last_hidden_state, rtol=0, atol=1e-12)
        assert_close(ours(images_of((16, 16))), expected.pooler_output, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("meta_positions")
@pytest.mark.parametrize("size", OTHERS)
@pytest.mark.parametrize("family", ["plain", "registers"])
def test_positions_are_resized_as_the_family_does_it(family, size, tmp_path):
    theirs = random_model(family)
    path = meta_file(theirs, tmp_path)
    with torch.no_grad():
        expected = theirs(images_of(size)).last_hidden_state
        for ours in (load_model(path, architecture=HEADS), load_model(path, architecture=HEADS, img_size=size)):
            # transformers resizes the positions of models with registers in float32.
            assert_close(
                ours.forward_features(images_of(size)), expected, rtol=0, atol=1e-12 if family == "plain" else 1e-5
            )


def test_interpolations_differ_by_more_than_the_tolerance():
    model = build_model(ModelConfig(img_size=(16, 16), patch_size=4, in_chans=2, num_classes=0, embed_dim=20, depth=1,
                                    num_heads=5))  # fmt: skip
    torch.nn.init.normal_(model.position.grid)
    grids = [
        resize_model(model, (12, 40), interpolation=kind).position.grid for kind in ("timm", "huggingface", "dinov2")
    ]
    assert all((grids[i] - grids[j]).abs().max() > 0.01 for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("family", FAMILIES)
def test_written_file_has_the_names_and_bits_of_the_read_one(family, tmp_path):
    path = meta_file(random_model(family), tmp_path)
    export_weights(load_model(path, architecture=HEADS), tmp_path / "back.pth", to="meta")
    before, after = torch.load(path), torch.load(tmp_path / "back.pth")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("family", ["registers", "registers giant"])
def test_meta_file_with_registers_converts_to_transformers_and_timm(family, tmp_path):
    ours = load_model(meta_file(random_model(family), tmp_path), architecture=HEADS)
    images = images_of((16, 16))
    with torch.no_grad():
        for target, out in (("hf", tmp_path / "hf"), ("timm", tmp_path / "timm.safetensors")):
            export_weights(ours, out, to=target)
            again = load_model(out, architecture={} if target == "hf" else HEADS)
            assert_close(again(images), ours(images), rtol=0, atol=1e-12)


def test_timm_file_with_registers_gives_the_tokens_of_transformers(tmp_path):
    theirs = random_model("registers")
    state = torch.load(meta_file(theirs, tmp_path))
    # timm adds the position of the class token to the token, and has none for registers.
    positions = state.pop("pos_embed")
    state |= {"cls_token": state["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}
    state |= {"reg_token": state.pop("register_tokens")}
    torch.save({name: tensor for name, tensor in state.items() if name != "mask_token"}, tmp_path / "timm.pth")
    ours = load_model(tmp_path / "timm.pth", architecture=HEADS)
    assert (ours.config.prefix_position, ours.config.num_registers) == ("none", 3)
    with torch.no_grad():
        expected = theirs(images_of((16, 16))).last_hidden_state
        assert_close(ours.forward_features(images_of((16, 16))), expected, rtol=0, atol=1e-12)


def test_masked_autoencoder_with_names_of_timm_is_not_taken_for_dinov2(tmp_path):
    config = ModelConfig(img_size=(16, 16), patch_size=4, in_chans=2, num_classes=0, embed_dim=20, depth=1, num_heads=5)
    export_weights(build_model(config), tmp_path / "m.pth", to="timm")
    torch.save({**torch.load(tmp_path / "m.pth"), "mask_token": torch.zeros(1, 1, 20)}, tmp_path / "m.pth")
    loaded = load_model(tmp_path / "m.pth", architecture=HEADS)
    assert (loaded.config.position_resize, loaded.config.dynamic_img_size) == ("timm", False)


@pytest.mark.parametrize(("width", "depth", "heads"), [(64, 1, 1), (384, 12, 6), (1536, 1, 24)])
def test_number_of_heads_follows_from_the_width(width, depth, heads, tmp_path):
    config = ModelConfig(img_size=(4, 4), patch_size=2, in_chans=1, num_classes=0, embed_dim=width, depth=depth,
                         num_heads=heads, layer_scale=1.0, num_registers=1, mlp_ratio=0.1)  # fmt: skip
    export_weights(build_model(config), tmp_path / "m.pth", to="meta")
    assert load_model(tmp_path / "m.pth").config.num_heads == heads


def test_name_of_timm_is_accepted_for_a_meta_file(tmp_path):
    config = ModelConfig(img_size=(28, 28), patch_size=14, in_chans=3, num_classes=0, embed_dim=384, depth=12,
                         num_heads=6, layer_scale=1.0, num_registers=4)  # fmt: skip
    model = build_model(config).eval()
    export_weights(model, tmp_path / "m.pth", to="meta")
    loaded = load_model(tmp_path / "m.pth", name="vit_small_patch14_reg4_dinov2")
    assert (loaded.config.prefix_position, loaded.config.position_resize) == ("class", "timm")
    images = torch.randn(1, 3, 28, 28)
    assert_close(loaded(images), model(images), rtol=0, atol=1e-6)


def test_missing_tensor_is_an_error(tmp_path):
    path = meta_file(random_model("registers"), tmp_path)
    state = torch.load(path)
    torch.save({name: tensor for name, tensor in state.items() if name != "cls_token"}, path)
    with pytest.raises((DamagedFileError, ConfigError), match=r"cls_token|positions"):
        load_model(path, architecture=HEADS)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"act": "relu"}, "model.act=relu with model.mlp=plain"),
        ({"mlp": "gated"}, "model.act=gelu with model.mlp=gated"),
        ({"pool": "mean"}, "model.pool=mean"),
        ({"prefix_position": "all"}, "model.prefix_position=all"),
        ({"head_dim": 8}, "model.head_dim=8"),
    ],
)
def test_what_their_code_does_not_have_is_refused(changes, refused, tmp_path):
    config = ModelConfig(img_size=(16, 16), patch_size=4, in_chans=2, num_classes=0, embed_dim=20, depth=1, num_heads=5,
                         **changes)  # fmt: skip
    with pytest.raises(ConfigError, match=refused):
        export_weights(build_model(config), tmp_path / "m.pth", to="meta")
