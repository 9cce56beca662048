"""Each family, small: compiled, exported and in ONNX it computes what it computes in eager mode, for any batch."""

import shutil
import warnings

import pytest
import torch

from vitreous.model import ModelConfig, build_model
from vitreous.model.change.merge import merge_tokens

SHAPE = {"img_size": (12, 20), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 40, "depth": 2}
DINOV3 = {"rotary": "dinov3", "position": "none", "key_bias": False, "mlp": "gated", "act": "silu", "num_registers": 4}
FAMILIES = {
    "vit": {},
    "vit_mean": {"pool": "mean", "fc_norm": True, "final_norm": False},
    "deit_distilled": {"distill_token": True},
    "deit3": {"layer_scale": 1e-1, "prefix_position": "none"},
    "dinov2_registers": {"layer_scale": 1e-1, "num_registers": 4, "pool": "token_mean"},
    "dinov3": {**DINOV3, "layer_scale": 1e-1, "norm_eps": 1e-5},
    "siglip": {"pool": "map", "act": "gelu_tanh"},
    "clip": {"embed_norm": True, "patch_bias": False, "act": "quick_gelu"},
    "aimv2": {"patch_norm": True, "norm": "rms", "mlp": "gated", "act": "silu", "pool": "mean"},
    "relative_bias": {"relative_bias": True, "position": "none", "pool": "mean"},
    "mixed_rotary": {"rotary": "mixed", "qk_norm": True},
    "sincos2d": {"position": "sincos2d", "pool": "mean"},
    "locality": {"locality": True, "attn_gate": True},
    "cct": {"stem": "cct", "pool": "sequence", "position": "sinusoidal", "norm_order": "post", "norm": "rms"},
}


def make(**changes):
    model = build_model(ModelConfig(**SHAPE, num_heads=5, **changes), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def draw(batch=2, height=12, width=20):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    yield
    torch.compiler.reset()


def any_batch():
    return {"images": {0: torch.export.Dim("batch", min=1, max=64)}}


@pytest.mark.parametrize(
    ("family", "kernel"), [*((family, "explicit") for family in FAMILIES), ("vit", "sdpa"), ("locality", "sdpa")]
)
@torch.no_grad()
def test_a_family_compiles_as_one_graph(family, kernel):
    model = make(**FAMILIES[family])
    for block in model.encoder.blocks:
        block.attn.kernel = kernel
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(draw()), model(draw()), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_training_compiles_as_one_graph(family):
    model = make(**FAMILIES[family], drop_path_rate=0.2, proj_drop_rate=0.1, patch_drop_rate=0.3).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(draw()).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.slow
@torch.no_grad()
def test_images_of_any_size_compile_as_one_graph():
    model = make(dynamic_img_size=True, rotary="axial")
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for size in ((12, 20), (8, 28)):
        torch.testing.assert_close(compiled(draw(2, *size)), model(draw(2, *size)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["vit", "dinov3", "relative_bias", "locality"])
@torch.no_grad()
def test_merging_compiles_as_one_graph(family):
    model = merge_tokens(make(**FAMILIES[family]), 3)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(draw()), model(draw()), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="inductor needs a C++ compiler")
@torch.no_grad()
def test_inductors_code_computes_the_same():
    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        logits = torch.compile(model, fullgraph=True, backend="inductor")(draw())
    torch.testing.assert_close(logits, model(draw()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_an_exported_family_takes_any_batch(family):
    model = make(**FAMILIES[family])
    exported = torch.export.export(model, (draw(3),), dynamic_shapes=any_batch()).module()
    for batch in (1, 2, 7):
        torch.testing.assert_close(exported(draw(batch)), model(draw(batch)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "mixed_rotary"])
@torch.no_grad()
def test_exported_merging_takes_any_batch(family):
    model = merge_tokens(make(**FAMILIES[family]), 3)
    exported = torch.export.export(model, (draw(3),), dynamic_shapes=any_batch()).module()
    for batch in (1, 2, 7):
        torch.testing.assert_close(exported(draw(batch)), model(draw(batch)), rtol=0, atol=1e-5)


def run_onnx(model, batches):
    """Logits by the reference evaluator of ONNX, and by the model itself, for each number of images."""
    pytest.importorskip("onnxscript", reason="torch's exporter to ONNX needs onnxscript")
    reference = pytest.importorskip("onnx.reference", reason="onnx runs the exported file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(model, (draw(3),), dynamo=True, dynamic_shapes=any_batch(), verbose=False)
    session = reference.ReferenceEvaluator(program.model_proto)
    (name,) = session.input_names
    for batch in batches:
        (logits,) = session.run(None, {name: draw(batch).numpy()})
        yield torch.from_numpy(logits), model(draw(batch))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_family_in_onnx_takes_any_batch(family):
    for logits, expected in run_onnx(make(**FAMILIES[family]), (1, 2)):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vit", "mixed_rotary"])
@torch.no_grad()
def test_merging_in_onnx_takes_any_batch(family):
    for logits, expected in run_onnx(merge_tokens(make(**FAMILIES[family]), 3), (1, 2)):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
