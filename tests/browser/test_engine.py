"""engine.js: with the same weights, it gives the logits and the heat maps of Python, for every kind of model."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.browser.runtime import Browser
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for
from torch import Tensor

from vitreous.model import ModelConfig, build_model
from vitreous.training.fit.familiarity import SCORES, Familiarity, head_inputs, unit_length
from vitreous.use.explain.methods.removal import occlusion
from vitreous.use.explain.target import Target
from vitreous.use.export.page.document import script_text
from vitreous.use.export.page.pack import TOLERANCE, pack
from vitreous.use.predict.predictor import Predictor

pytestmark = pytest.mark.browser
CHANGED = ("merged", "merged with relative_bias", "merged, rotary, mean", "lora", "bf16", "autocast")
KINDS = [kind for kind in models.KINDS if kind not in CHANGED]
OTHERS: dict[str, dict[str, Any]] = {
    "normed stem": {"stem": "normed"},
    "patch norm": {"patch_norm": True, "embed_norm": True},
    "deep conv stem, gray": {"stem": "conv", "img_size": (16, 24), "patch_size": 8, "in_chans": 1},
    "deep cct stem": {"stem": "cct", "img_size": (16, 24), "patch_size": 8, "pool": "sequence", "patch_bias": True},
    "sinusoidal, silu": {"position": "sinusoidal", "act": "silu"},
    "big_vision": {"position": "sincos2d_big_vision", "act": "relu", "pool": "map"},
    "gelu_tanh": {"act": "gelu_tanh", "class_token": True, "pool": "max"},
    "quick_gelu, no biases": {"act": "quick_gelu", "qkv_bias": False, "mlp_bias": False, "proj_bias": False},
    "narrow heads": {"head_dim": 4, "num_heads": 5, "qk_norm": True, "locality": True},
    "post norm, rms": {"norm_order": "post", "norm": "rms", "layer_scale": 0.3},
    "all positions": {"distill_token": True, "num_registers": 2, "prefix_position": "all"},
    "one patch": {"img_size": (4, 4), "pool": "mean"},
}
NUM_IMAGES = 26
HEAD = """
const model = Engine.load(data.model), steps = (generator) => {
  for (;;) { const step = generator.next(); if (step.done) return step.value; }
};
const imageOf = (pixels) => Engine.normalize(Uint8Array.from(pixels), data.model.normalize);
const logitsOf = (pixels) => steps(Engine.logits(model, imageOf(pixels)));
"""
LOGITS = "data.images.map((pixels) => [...logitsOf(pixels)])"


def pixels_for(predictor: Predictor, count: int) -> Tensor:
    shape = (count, predictor.preprocess.in_chans, *predictor.preprocess.img_size)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def in_javascript(predictor: Predictor, pixels: Tensor, last: str, browser: Browser) -> Tensor:
    data = {
        "model": json.loads(pack(predictor).text),
        "images": pixels.permute(0, 2, 3, 1).flatten(1).tolist(),
    }
    return torch.tensor(browser.compute(script_without_page() + HEAD + last, data), dtype=torch.float64)


def script_without_page() -> str:
    """Return the engine without the part that needs a document."""
    return script_text().split("// The elements of `app.html`")[0]


def make(kind: str, make_predictor: Callable[..., Predictor]) -> Predictor:
    return make_predictor(**OTHERS[kind]) if kind in OTHERS else make_predictor(kind)


@torch.no_grad()
def in_python(predictor: Predictor, pixels: Tensor) -> Tensor:
    return pack(predictor).rounded.double()(predictor.preprocess.normalize(pixels).double())


def test_kinds_of_models_and_images_are_many() -> None:
    assert NUM_IMAGES * len([*KINDS, *OTHERS]) >= 1_000


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_logits_are_those_of_python(kind: str, predictor_of: Callable[..., Predictor], browser: Browser) -> None:
    predictor = make(kind, predictor_of)
    pixels = pixels_for(predictor, NUM_IMAGES)
    expected = in_python(predictor, pixels)
    found = in_javascript(predictor, pixels, LOGITS, browser)
    assert (found - expected).abs().max() < TOLERANCE * min(1.0, float(expected.abs().max()))
    assert torch.equal(found.argmax(dim=1), expected.argmax(dim=1))


@pytest.mark.parametrize("kind", [kind for kind in (*KINDS, *OTHERS) if kind != "one patch"])
def test_heat_maps_are_those_of_occlusion(kind: str, predictor_of: Callable[..., Predictor], browser: Browser) -> None:
    predictor = make(kind, predictor_of)
    pixels = pixels_for(predictor, 2)
    images = predictor.preprocess.normalize(pixels)
    rounded = pack(predictor).rounded
    last = "data.images.map((pixels) => steps(Engine.occlusion(model, imageOf(pixels))).map((falls) => [...falls]))"
    falls = in_javascript(predictor, pixels, last, browser)  # [images, patches, classes]
    for number in {0, predictor.model.num_classes - 1}:
        expected = occlusion(rounded, images, Target(number)).values.flatten(1).double()
        torch.testing.assert_close(
            falls[:, :, number], expected, rtol=0, atol=2e-4 * float(expected.abs().max()) + 1e-5
        )


def test_model_of_a_planned_run_agrees(browser: Browser) -> None:
    config = ModelConfig(
        img_size=(64, 64), patch_size=8, in_chans=3, num_classes=10, embed_dim=192, depth=6, num_heads=6, pool="mean",
        init="xavier",
    )  # fmt: skip
    predictor = predictor_for(build_model(config, generator=torch.Generator().manual_seed(0)))
    pixels = pixels_for(predictor, 4)
    found = in_javascript(predictor, pixels, LOGITS, browser)
    torch.testing.assert_close(found, in_python(predictor, pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("thresholds", [None, (0.2, 0.4, 0.5, 0.6, 0.8)])
def test_probabilities_are_calibrated_like_those_of_python(
    thresholds: tuple[float, ...] | None, predictor_of: Callable[..., Predictor], browser: Browser
) -> None:
    predictor = predictor_of(thresholds=thresholds)
    pixels = pixels_for(predictor, 3)
    expected = predictor.probabilities(in_python(predictor, pixels))
    last = "data.images.map((pixels) => [...Engine.probabilities(logitsOf(pixels), data.model)])"
    torch.testing.assert_close(in_javascript(predictor, pixels, last, browser), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("thresholds", [None, (0.2, 0.4, 0.5, 0.6, 0.8)])
@pytest.mark.parametrize("score", list(SCORES))
def test_images_are_as_unlike_the_training_images_as_in_python(
    score: str, thresholds: tuple[float, ...] | None, predictor_of: Callable[..., Predictor], browser: Browser
) -> None:
    predictor = predictor_of(thresholds=thresholds)
    pixels = pixels_for(predictor, 90)
    features, logits = head_inputs(pack(predictor).rounded, [predictor.preprocess.normalize(pixels)])
    groups = torch.arange(40) % 5
    found = Familiarity(unit_length(features[:40]).half(), groups, thresholds is not None, 0.1, score)
    found = replace(found, known=found.scores(score, features[40:60], logits[40:60]))
    vars(predictor)["familiarity"] = found  # as if read from its file
    steps = "steps(Engine.features(model, imageOf(pixels)))"
    last = "Engine.unfamiliar(model, features, Engine.classify(model, features), data.model)"
    last = f"data.images.map((pixels) => {{ const features = {steps}; return {last}; }})"
    percentiles = in_javascript(predictor, pixels[60:], last, browser)
    expected = torch.from_numpy(found.unfamiliar(features[60:], logits[60:]))
    assert len(expected.unique()) > 10
    tolerance = 2e-2 if score == "neighbors" else 5e-3  # neighbors are rounded to 8 bits; 20 images decide here
    torch.testing.assert_close(percentiles, expected, rtol=0, atol=tolerance)


def test_computation_stops_when_its_result_is_no_longer_wanted(
    predictor_of: Callable[..., Predictor], browser: Browser
) -> None:
    predictor = predictor_of()
    head = "const stopped = Engine.inSlices(Engine.logits(model, imageOf(data.images[0])), () => false);"
    last = f"{head}\n[(await stopped) === undefined]"
    assert in_javascript(predictor, pixels_for(predictor, 1), last, browser).tolist() == [1.0]
