"""A small model of each family -> compiled, exported and in ONNX, it gives the logits of eager mode for any batch."""

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

# Tracing takes about a second per model, so the other families are left to `make test`.
FAST = ("vit", "dinov3", "relative_bias", "cct")


def cases(families, *arguments, fast=FAST):
    """Return one test case per family; those that are not in `fast` are marked as slow."""
    return [pytest.param(family, *arguments, marks=() if family in fast else pytest.mark.slow) for family in families]


def make_model(**changes):
    model = build_model(ModelConfig(**SHAPE, num_heads=5, **changes), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def draw_images(batch=2, height=12, width=20):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def _reset_compiler():
    yield
    torch.compiler.reset()


def any_batch_size():
    return {"images": {0: torch.export.Dim("batch", min=1, max=64)}}


@pytest.mark.parametrize(("family", "kernel"), [*cases(FAMILIES, "explicit"), *cases(("vit", "locality"), "sdpa")])
@torch.no_grad()
def test_family_compiles_as_one_graph(family, kernel):
    model = make_model(**FAMILIES[family])
    for block in model.encoder.blocks:
        block.attn.kernel = kernel
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(draw_images()), model(draw_images()), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_training_compiles_as_one_graph(family):
    model = make_model(**FAMILIES[family], drop_path_rate=0.2, proj_drop_rate=0.1, patch_drop_rate=0.3).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(draw_images()).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.slow
@torch.no_grad()
def test_dynamic_model_compiles_as_one_graph_for_each_image_size():
    model = make_model(dynamic_img_size=True, rotary="axial")
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for size in ((12, 20), (8, 28)):
        torch.testing.assert_close(compiled(draw_images(2, *size)), model(draw_images(2, *size)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", cases(("vit", "dinov3", "relative_bias", "locality"), fast=("dinov3",)))
@torch.no_grad()
def test_merging_compiles_as_one_graph(family):
    model = merge_tokens(make_model(**FAMILIES[family]), 3)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(draw_images()), model(draw_images()), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="inductor needs a C++ compiler")
@torch.no_grad()
def test_inductor_gives_the_logits_of_eager_mode():
    model = make_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from inductor itself
        logits = torch.compile(model, fullgraph=True, backend="inductor")(draw_images())
    torch.testing.assert_close(logits, model(draw_images()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", cases(FAMILIES))
@torch.no_grad()
def test_exported_family_accepts_any_batch_size(family):
    model = make_model(**FAMILIES[family])
    exported = torch.export.export(model, (draw_images(3),), dynamic_shapes=any_batch_size()).module()
    for batch in (1, 2, 7):
        torch.testing.assert_close(exported(draw_images(batch)), model(draw_images(batch)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", cases(FAMILIES))
def test_traced_family_accepts_any_batch_size(family):
    """With gradients on, as most users leave them; the tracer checks its result without gradients."""
    model = make_model(**FAMILIES[family])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the shape checks of a forward pass are constants in a trace
        traced = torch.jit.trace(model, draw_images(3))
    for batch in (1, 2, 7):
        torch.testing.assert_close(traced(draw_images(batch)), model(draw_images(batch)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", cases(("vit", "mixed_rotary"), fast=("vit",)))
@torch.no_grad()
def test_exported_merging_accepts_any_batch_size(family):
    model = merge_tokens(make_model(**FAMILIES[family]), 3)
    exported = torch.export.export(model, (draw_images(3),), dynamic_shapes=any_batch_size()).module()
    for batch in (1, 2, 7):
        torch.testing.assert_close(exported(draw_images(batch)), model(draw_images(batch)), rtol=0, atol=1e-5)


def run_onnx(model, batches):
    """Yield the logits of ONNX's reference evaluator and those of the model itself, for each batch size."""
    pytest.importorskip("onnxscript", reason="torch's exporter to ONNX needs onnxscript")
    reference = pytest.importorskip("onnx.reference", reason="onnx runs the exported file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from the exporter itself
        program = torch.onnx.export(
            model, (draw_images(3),), dynamo=True, dynamic_shapes=any_batch_size(), verbose=False
        )
    session = reference.ReferenceEvaluator(program.model_proto)
    (name,) = session.input_names
    for batch in batches:
        (logits,) = session.run(None, {name: draw_images(batch).numpy()})
        yield torch.from_numpy(logits), model(draw_images(batch))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_family_in_onnx_accepts_any_batch_size(family):
    for logits, expected in run_onnx(make_model(**FAMILIES[family]), (1, 2)):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vit", "mixed_rotary"])
@torch.no_grad()
def test_merging_in_onnx_accepts_any_batch_size(family):
    for logits, expected in run_onnx(merge_tokens(make_model(**FAMILIES[family]), 3), (1, 2)):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
