import math

import pytest
import torch

from vitreous.model.build import build_model, create_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.init import SCHEMES, initialize
from vitreous.model.parts.fixed_position import sincos2d

CONFIG = ModelConfig(img_size=(24, 40), patch_size=4, in_chans=3, num_classes=50, embed_dim=120, depth=2, num_heads=5)


def test_initialize_sets_every_parameter():
    model = build_model(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    initialize(model)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_weights_follow_timms_scheme():
    state = build_model(CONFIG, generator=torch.Generator().manual_seed(0)).state_dict()
    for name in ("encoder.blocks.1.attn.qkv.weight", "encoder.blocks.0.mlp.fc1.weight", "head.weight", "position.grid"):
        assert state[name].std().item() == pytest.approx(0.02, rel=0.05), name
    bound = 48**-0.5
    for name in ("tokenizer.proj.weight", "tokenizer.proj.bias"):
        assert state[name].abs().max() <= bound
        assert state[name].std().item() == pytest.approx(bound / 3**0.5, rel=0.15), name
    assert state["prefix.class_token"].abs().max() < 1e-5
    assert state["prefix.class_position"].std().item() == pytest.approx(0.02, rel=0.2)
    for name, tensor in state.items():
        if "norm" in name:
            torch.testing.assert_close(tensor, torch.ones(120) if name.endswith("weight") else torch.zeros(120))
        elif name.endswith("bias") and "tokenizer" not in name:
            torch.testing.assert_close(tensor, torch.zeros_like(tensor))


def test_xavier_weights_scale_with_the_width():
    config = ModelConfig.from_dict(CONFIG.as_dict() | {"init": "xavier"})
    state = build_model(config, generator=torch.Generator().manual_seed(0)).state_dict()
    block = "encoder.blocks.1"
    fans = {
        f"{block}.attn.proj.weight": 120 + 120,
        f"{block}.mlp.fc1.weight": 120 + 480,
        f"{block}.mlp.fc2.weight": 480 + 120,
        "head.weight": 120 + 50,
    }
    matrices = {name: (state[name], fan) for name, fan in fans.items()}
    matrices |= {f"qkv {i}": (part, 240) for i, part in enumerate(state[f"{block}.attn.qkv.weight"].chunk(3))}
    for name, (matrix, fan) in matrices.items():
        assert matrix.abs().max() <= (6 / fan) ** 0.5, name
        assert matrix.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.05), name
    assert 0.8 < state["position.grid"].std() < 1.0  # a standard normal distribution truncated at ±2
    torch.testing.assert_close(state[f"{block}.attn.qkv.bias"], torch.zeros(360), rtol=0, atol=0)


def test_weights_depend_only_on_the_generator():
    first = build_model(CONFIG, generator=torch.Generator().manual_seed(3)).state_dict()
    torch.manual_seed(99)
    again = build_model(CONFIG, generator=torch.Generator().manual_seed(3)).state_dict()
    for name in first:
        torch.testing.assert_close(first[name], again[name], rtol=0, atol=0)


def test_without_a_generator_weights_come_from_torchs_global_generator():
    heads = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        heads.append(create_model("vit_pico_patch4_28").head.weight)
    torch.testing.assert_close(heads[0], heads[1], rtol=0, atol=0)
    assert not torch.equal(heads[1], heads[2])


def test_seed_does_not_advance_torchs_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    create_model("vit_pico_patch4_28", seed=7)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def assert_uniform(tensor, bound, name):
    assert 0.97 * bound < tensor.abs().max() <= bound, name
    assert tensor.std().item() == pytest.approx(bound / 3**0.5, rel=0.05), name


def assert_normal(tensor, std, name, truncated=False):
    """Check for a normal distribution with this std; `truncated` if it was cut at two of its original stds."""
    assert tensor.std().item() == pytest.approx(std, rel=0.06), name
    assert abs(tensor.mean().item()) < 5 * std / tensor.numel() ** 0.5, name
    largest = tensor.abs().max().item() / std
    assert (2.2 < largest <= 2 / 0.8796 + 1e-6) if truncated else largest > 2.5, name


def assert_zero(tensor, name):
    torch.testing.assert_close(tensor, torch.zeros_like(tensor), rtol=0, atol=0, msg=name)


WIDE = {"img_size": (40, 56), "patch_size": 4, "in_chans": 3, "num_classes": 50, "embed_dim": 300, "depth": 1}


def build_wide(scheme, **changes):
    config = ModelConfig(**WIDE, num_heads=5, init=scheme, num_registers=40, prefix_position="all", **changes)
    return build_model(config, generator=torch.Generator().manual_seed(0))


XAVIER_MLP = (6 / (300 + 1200)) ** 0.5
# For each scheme: matrices of query, key and value; output projection; matrices of the MLP; patch projection and its
# bias; biases of the MLP; positions; prefix tokens; head. For matrices and the bias of patches, numbers are bounds of a
# uniform distribution; otherwise they are stds. The heads 0.02 and 2e-5 are stds too. Positions of std None have a
# standard normal distribution truncated at ±2.
EXPECTED = {
    "timm": ("normal 0.02",) * 3 + (48**-0.5, 48**-0.5, 0, 0.02, 1e-6, 0.02),
    "xavier": (0.1, 0.1, XAVIER_MLP, 48**-0.5, 48**-0.5, 0, None, 1e-6, (6 / 350) ** 0.5),
    "jax": (0.1, 0.1, XAVIER_MLP, "truncated normal", 0, 1e-6, 0.02, 1e-6, 0),
    "jax_nlhb": (0.1, 0.1, XAVIER_MLP, "truncated normal", 0, 1e-6, 0.02, 1e-6, 0),
    "torchvision": ((6 / 1200) ** 0.5, 300**-0.5, XAVIER_MLP, "normal", 0, 1e-6, 0.02, 0, 0),
    "deit3": ("normal 0.02",) * 3 + (48**-0.5, 48**-0.5, 0, 0.02, 0.02, 0.02),
    "mae": ((6 / 1200) ** 0.5, 0.1, XAVIER_MLP, (6 / 348) ** 0.5, 48**-0.5, 0, 0.02, 0.02, 2e-5),
}


def test_every_scheme_is_tested():
    assert {*EXPECTED, "mimetic"} == set(SCHEMES)


@pytest.mark.parametrize("scheme", EXPECTED)
def test_every_part_is_drawn_from_the_distribution_of_its_scheme(scheme):
    qkv, proj, mlp, patch, patch_bias, mlp_bias, position, token, head = EXPECTED[scheme]
    state, block = build_wide(scheme).state_dict(), "encoder.blocks.0"
    matrices = {f"{block}.attn.proj.weight": proj, f"{block}.mlp.fc1.weight": mlp, f"{block}.mlp.fc2.weight": mlp}
    drawn = {name: (state[name], expected) for name, expected in matrices.items()}
    drawn |= {f"qkv {i}": (part, qkv) for i, part in enumerate(state[f"{block}.attn.qkv.weight"].chunk(3))}
    drawn["tokenizer.proj.weight"] = (state["tokenizer.proj.weight"], patch)
    for name, (matrix, expected) in drawn.items():
        if expected == "normal 0.02":
            assert_normal(matrix, 0.02, name)
        elif expected in ("truncated normal", "normal"):
            assert_normal(matrix, 48**-0.5, name, truncated=expected == "truncated normal")
        else:
            assert_uniform(matrix, expected, name)
    assert_zero(state[f"{block}.attn.qkv.bias"], "qkv bias")
    assert_zero(state[f"{block}.attn.proj.bias"], "proj bias")
    bias = state["tokenizer.proj.bias"]
    assert_uniform(bias, patch_bias, "patch bias") if patch_bias else assert_zero(bias, "patch bias")
    for name in ("fc1", "fc2"):
        bias = state[f"{block}.mlp.{name}.bias"]
        assert_normal(bias, mlp_bias, name) if mlp_bias else assert_zero(bias, name)
    if position:
        assert_normal(state["position.grid"], position, "position")
        assert_normal(state["prefix.register_position"], position, "register position")
    else:
        assert state["position.grid"].abs().max() <= 2
        assert state["position.grid"].std().item() == pytest.approx(0.8796, rel=0.02)
    registers = state["prefix.registers"]
    assert_normal(registers, token, "registers") if token else assert_zero(registers, "registers")
    assert state["prefix.class_token"].std().item() == pytest.approx(token, rel=0.15)
    if head in (0.02, 2e-5):
        assert_normal(state["head.weight"], head, "head")
    elif head:
        assert_uniform(state["head.weight"], head, "head")
    else:
        assert_zero(state["head.weight"], "head")
    expected = torch.full((50,), -math.log(50) if scheme == "jax_nlhb" else 0.0)
    torch.testing.assert_close(state["head.bias"], expected, rtol=0, atol=0)


def test_distilled_head_and_gated_mlp_are_drawn_by_the_scheme():
    state = build_wide("jax_nlhb", distill_token=True, mlp="gated").state_dict()
    for name in ("label", "teacher"):
        assert_zero(state[f"head.{name}.weight"], name)
        torch.testing.assert_close(state[f"head.{name}.bias"], torch.full((50,), -math.log(50)), rtol=0, atol=0)
    assert_normal(state["encoder.blocks.0.mlp.fc1.bias"], 1e-6, "fc1")
    assert_normal(state["prefix.distill_token"], 1e-6, "distillation token")


EXTRAS = {
    "locality": True,
    "attn_gate": True,
    "qk_norm": True,
    "key_bias": False,
    "layer_scale": 0.3,
    "pool": "map",
    "fc_norm": True,
    "patch_norm": True,
    "embed_norm": True,
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "changes",
    [
        EXTRAS | {"rotary": "mixed"},
        EXTRAS | {"relative_bias": True, "class_token": True},
        {"stem": "conv", "pool": "sequence", "norm": "rms", "norm_order": "post", "mlp": "gated"},
        {"stem": "cct", "distill_token": True, "num_registers": 3},
        {"stem": "shifted", "head_dim": 12},
        {"head_dim": 32, "position": "sincos2d"},
    ],
)
def test_every_scheme_sets_every_parameter_from_the_generator(scheme, changes):
    shape = {"img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 80, "depth": 2}
    model = build_model(ModelConfig(**shape, num_heads=5, init=scheme, **changes))
    states = []
    for seed in (3, 99):
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(torch.nan)
        initialize(model, scheme=scheme, generator=torch.Generator().manual_seed(7))
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    for name, tensor in states[0].items():
        assert tensor.isfinite().all(), name
        torch.testing.assert_close(tensor, states[1][name], rtol=0, atol=0, msg=name)
        if "norm" in name and tensor.ndim == 1:
            torch.testing.assert_close(tensor, torch.full_like(tensor, float(name.endswith("weight"))), msg=name)


def test_parts_without_a_scheme_start_as_in_their_papers():
    config = ModelConfig(**WIDE, num_heads=5, **EXTRAS, relative_bias=True, class_token=True)
    state = build_model(config, generator=torch.Generator().manual_seed(0)).state_dict()
    torch.testing.assert_close(state["encoder.blocks.0.ls2.gamma"], torch.full((300,), 0.3), rtol=0, atol=0)
    temperature = state["encoder.blocks.0.attn.log_scale"].exp()
    torch.testing.assert_close(temperature, torch.tensor(60**-0.5))
    assert_normal(state["relation.table"], 0.02, "relative bias")
    assert_normal(state["pool.probe"], 300**-0.5, "probe")
    assert_zero(state["encoder.blocks.0.attn.qkv.bias"], "qkv bias")


def test_xavier_draws_query_key_and_value_of_the_attention_pool_separately():
    state = build_wide("xavier", pool="map").state_dict()
    for part in (state["pool.q.weight"], *state["pool.kv.weight"].chunk(2), state["pool.proj.weight"]):
        assert_uniform(part, 0.1, "pool")


def build_mimetic(num_heads, **changes):
    config = ModelConfig.from_dict(CONFIG.as_dict() | {"init": "mimetic", "num_heads": num_heads} | changes)
    model = build_model(config, generator=torch.Generator().manual_seed(0)).double()
    return model, [block.attn for block in model.encoder.blocks]


def assert_noise_plus_identity(matrix, noise, identity):
    """Check that the matrix is `noise * Z + identity * I`, where Z has variance 1/width."""
    width = len(matrix)
    rest = matrix - identity * torch.eye(width, dtype=matrix.dtype)
    assert rest.std().item() == pytest.approx(noise * width**-0.5, rel=0.05)
    assert rest.diagonal().mean().item() == pytest.approx(0, abs=4 * noise / width)


@torch.no_grad()
def test_mimetic_products_are_noise_plus_identity():
    for attn in build_mimetic(1)[1]:
        query, key, value = attn.qkv.weight.chunk(3)
        assert_noise_plus_identity(query.T @ key, 0.7, 0.7)
        assert_noise_plus_identity(attn.proj.weight @ value, 0.4, -0.4)
    for attn in build_mimetic(5)[1]:
        assert_noise_plus_identity(attn.proj.weight @ attn.qkv.weight.chunk(3)[2], 0.4, -0.4)


@torch.no_grad()
@pytest.mark.parametrize("head_dim", [7, 150])
def test_mimetic_products_have_the_right_sign_for_any_head_dim(head_dim):
    for attn in build_mimetic(5, head_dim=head_dim)[1]:
        value, output = attn.qkv.weight.chunk(3)[2], attn.proj.weight
        product = output @ value
        assert torch.linalg.matrix_rank(product) == min(5 * head_dim, product.shape[0])
        assert product.diagonal().mean() < -0.1
        query, key, _ = attn.qkv.weight.chunk(3)
        assert (query[:head_dim].T @ key[:head_dim]).diagonal().mean() > 0.02


@torch.no_grad()
def test_mimetic_heads_keep_the_strongest_directions():
    for attn in build_mimetic(5)[1]:
        query, key, _ = attn.qkv.weight.chunk(3)
        products = [q.T @ k for q, k in zip(query.chunk(5), key.chunk(5), strict=True)]
        for q, k, product in zip(query.chunk(5), key.chunk(5), products, strict=True):
            spectrum = torch.linalg.svdvals(product)
            assert spectrum[24:].max() < 1e-6 < 0.5 < spectrum[23]
            torch.testing.assert_close(q @ q.T, torch.diag(spectrum[:24]), rtol=0, atol=1e-5)
            torch.testing.assert_close(k @ k.T, torch.diag(spectrum[:24]), rtol=0, atol=1e-5)
            assert 0.1 < product.diagonal().mean() < 0.6  # less than 0.7, because there are only 24 of 120 directions
        assert not torch.allclose(products[0], products[1], atol=0.1)


def test_mimetic_positions_are_sinusoidal_and_biases_zero():
    model, _ = build_mimetic(5)
    torch.testing.assert_close(model.position.grid.detach(), sincos2d((6, 10), 120).view(6, 10, 120), rtol=0, atol=1e-6)
    assert_zero(model.encoder.blocks[0].attn.qkv.bias.detach(), "qkv bias")
