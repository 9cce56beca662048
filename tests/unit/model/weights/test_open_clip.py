"""OpenCLIP's image tower, compared with torch's own transformer layers."""

import json

import pytest
import torch
from tests.unit.model.weights.samples import load_model
from torch import nn
from torch.nn import functional as F

from vitreous.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

WIDTH, HEADS, PATCH, SIDE, OUT, DEPTH = 128, 2, 4, 12, 7, 2


class Tower(nn.Module):
    """The forward pass of OpenCLIP's `VisionTransformer`, with its names."""

    def __init__(self, act):
        super().__init__()
        self.act = act
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn((SIDE // PATCH) ** 2 + 1, WIDTH))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.proj = nn.Parameter(torch.randn(WIDTH, OUT))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList()
        for _ in range(DEPTH):
            block = nn.Module()
            block.ln_1, block.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            block.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
            block.mlp = nn.Module()
            block.mlp.c_fc, block.mlp.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, WIDTH)
            self.transformer.resblocks.append(block)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, images):
        return self.ln_post(self.tokens(images)[:, 0]) @ self.proj

    def tokens(self, images):
        tokens = self.conv1(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_embedding.expand(len(images), 1, -1), tokens], 1) + self.positional_embedding
        tokens = self.ln_pre(tokens)
        for block in self.transformer.resblocks:
            normed = block.ln_1(tokens)
            tokens = tokens + block.attn(normed, normed, normed, need_weights=False)[0]
            tokens = tokens + block.mlp.c_proj(self.act(block.mlp.c_fc(block.ln_2(tokens))))
        return tokens


def whole_model(tower):
    """Return the state of a model of image and text."""
    text = {"transformer.resblocks.0.ln_1.weight": torch.zeros(8), "text_projection": torch.zeros(8, OUT)}
    text |= {"positional_embedding": torch.zeros(5, 8), "token_embedding.weight": torch.zeros(9, 8)}
    return {**text, "logit_scale": torch.tensor(1.0)} | {f"visual.{k}": v for k, v in tower.state_dict().items()}


@pytest.mark.parametrize(("act", "given"), [(F.gelu, {}), (lambda x: x * torch.sigmoid(1.702 * x), "quick_gelu")])
@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_image_tower_gives_the_same_features(tmp_path, act, given, is_whole, half):
    torch.manual_seed(0)
    tower = Tower(act).double().eval()
    if half:
        tower = tower.half().double()
    state = whole_model(tower) if is_whole else tower.state_dict()
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "open_clip_pytorch_model.bin")
    if given:
        described = {"model_cfg": {"quick_gelu": True, "vision_cfg": {"width": WIDTH, "layers": DEPTH}}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    model = load_model(tmp_path / "open_clip_pytorch_model.bin")
    images = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64)
    torch.testing.assert_close(model(images), tower(images))
    assert (model.config.num_heads, model.config.act) == (HEADS, given or "gelu")


@pytest.mark.parametrize("settings", [{"model_cfg": 3}, {"model_cfg": {"vision_cfg": [1]}}])
def test_odd_descriptions_do_not_matter(tmp_path, settings):
    torch.save(Tower(F.gelu).state_dict(), tmp_path / "model.bin")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    assert load_model(tmp_path / "model.bin").config.num_heads == HEADS


@pytest.mark.parametrize("after", [True, False])
def test_mean_of_the_patches_is_read_from_the_description(tmp_path, after):
    torch.manual_seed(0)
    tower = Tower(F.gelu).double().eval()
    torch.save(tower.state_dict(), tmp_path / "model.bin")
    described = {"model_cfg": {"vision_cfg": {"pool_type": "avg", "final_ln_after_pool": after}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    images = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64)
    patches = tower.tokens(images)[:, 1:]
    pooled = tower.ln_post(patches.mean(1)) if after else tower.ln_post(patches).mean(1)
    torch.testing.assert_close(load_model(tmp_path / "model.bin")(images), pooled @ tower.proj)


def test_pool_of_the_user_replaces_an_assumed_or_an_unknown_one(tmp_path):
    torch.save(Tower(F.gelu).state_dict(), tmp_path / "model.bin")
    assert load_model(tmp_path / "model.bin", architecture={"pool": "mean"}).config.has_class_token
    described = {"model_cfg": {"vision_cfg": {"pool_type": "none"}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(ConfigError) as caught:
        load_model(tmp_path / "model.bin")
    assert str(caught.value) == (
        "open_clip_config.json.pool_type='none': our models have no such pool; to use another one, pass "
        "architecture={'pool': 'mean'}, or --architecture.pool mean"
    )
    assert load_model(tmp_path / "model.bin", architecture={"pool": "mean"}).config.pool == "mean"
