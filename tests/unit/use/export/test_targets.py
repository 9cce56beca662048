"""Every kind of model in every format: photos of any size and number give the probabilities of Python."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import ConfigError, MissingDependencyError
from vitreous.use.export import targets
from vitreous.use.export.proof import Photos, python_answer
from vitreous.use.export.targets import TARGETS
from vitreous.use.predict.predictor import Predictor

KINDS = sorted(set(models.KINDS) - {"bf16", "autocast", "explicit"})
FAST = ("token", "conv", "merged")
DESCRIPTION = {"name": 'a "name"', "classes": ["Äpfel", "</script>"], "thresholds": None}


def photos_of(batch: int, height: int, width: int, channels: int = 3) -> Photos:
    draw = np.random.default_rng(batch * 1000 + height * 10 + width)
    smooth = np.linspace(0, 200, height)[None, :, None, None] + np.linspace(-50, 50, width)[None, None, :, None]
    return (smooth + draw.normal(0, 30, (batch, height, width, channels))).clip(0, 255).astype(np.uint8)


def written(predictor: Predictor, to: str, folder: Path) -> Any:
    try:
        TARGETS[to].check_packages(to)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return TARGETS[to].write(predictor, folder / f"model{TARGETS[to].suffix}", DESCRIPTION)


def check(predictor: Predictor, to: str, folder: Path, channels: int = 3) -> None:
    answer, python = written(predictor, to, folder), python_answer(predictor)
    for shape in ((1, 40, 31), (2, 8, 12), (7, 5, 60), (1, 90, 9)):
        photos = photos_of(*shape, channels)
        (found,) = answer(photos)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, python(photos)[0], atol=TARGETS[to].tolerance)


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
@pytest.mark.parametrize(
    "kind", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_model_of_this_kind_gives_the_answers_of_python(kind: str, to: str, tmp_path: Path) -> None:
    check(predictor_for(models.make_model(kind)), to, tmp_path)


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
def test_several_labels_one_channel_and_a_padded_square(to: str, tmp_path: Path) -> None:
    made = predictor_for(
        models.make_model(in_chans=1, img_size=(8, 8), pool="mean"), thresholds=(0.1, 0.3, 0.5, 0.7, 0.9)
    )
    check(replace(made, preprocess=replace(made.preprocess, fit="pad")), to, tmp_path, channels=1)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_five_channels(to: str, tmp_path: Path) -> None:
    made = predictor_for(models.make_model(in_chans=3))
    preprocess = Preprocess((8, 12), 5, "squash", (0.4,) * 5, (0.3,) * 5)
    check(replace(made, model=models.make_model(in_chans=5), preprocess=preprocess), to, tmp_path, channels=5)


def test_onnx_file_describes_itself(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    written(predictor_for(models.make_model()), "onnx", tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == DESCRIPTION
    (given,), (result,) = model.graph.input, model.graph.output
    assert (given.name, result.name) == ("photos", "probabilities")
    sizes = [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim]
    assert sizes == ["batch", "height", "width", 3]


def test_torch_program_describes_itself(tmp_path: Path) -> None:
    written(predictor_for(models.make_model()), "torch", tmp_path)
    extra = dict.fromkeys(DESCRIPTION, "")
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert {key: json.loads(value) for key, value in extra.items()} == DESCRIPTION


def test_page_has_the_model_and_escapes_what_it_is_called(tmp_path: Path) -> None:
    made = replace(predictor_for(models.make_model()), classes=("</script><b>", "b", "c", "d", "e"))
    answer = written(made, "html", tmp_path)
    text = (tmp_path / "model.html").read_text("utf-8")
    assert "<h1>a &quot;name&quot;</h1>" in text
    assert "<b>" not in text.partition("<main")[2]
    assert text.count("const Engine") == 1
    photos = photos_of(3, 20, 30)
    assert 0 < np.abs(answer(photos)[0] - python_answer(made)(photos)[0]).max() < 0.25


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else name)
    with pytest.raises(
        MissingDependencyError,
        match=r"^to=onnx: needs onnx, onnxscript, onnxruntime; pip install 'vitreous\[export\]'$",
    ):
        TARGETS["onnx"].check_packages("onnx")
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None if name == "nncf" else name)
    with pytest.raises(MissingDependencyError, match=r"^to=openvino: needs nncf; pip install 'vitreous\[openvino\]'$"):
        TARGETS["openvino"].check_packages("openvino")


def test_model_that_torch_cannot_trace_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with (
        patch("torch.onnx.export", side_effect=RuntimeError("no\nsuch operator")),
        pytest.raises(
            ConfigError,
            match=r"^to=onnx: this model cannot be written \(no such operator\); use `vitreous predict` for it$",
        ),
    ):
        written(predictor_for(models.make_model()), "onnx", tmp_path)


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch", "html"])
def test_images_of_more_than_8_bits_are_refused(to: str, tmp_path: Path) -> None:
    made = predictor_for(models.make_model())
    deep = replace(made, preprocess=replace(made.preprocess, value_range=(0.0, 4095.0)))
    with pytest.raises(ConfigError, match=r"^data\.value_range=0,4095: .*8 bits.*; use "):
        written(deep, to, tmp_path)


def test_model_that_is_too_large_for_a_page_or_for_onnx_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitreous.use.export.page.pack.MOST_BYTES", 100)
    monkeypatch.setattr(targets, "_MOST_BYTES", 100)
    made = predictor_for(models.make_model())
    with pytest.raises(
        ConfigError,
        match=r"^model=.* that a page takes; run `npm install onnxruntime-web@[\d.]+` and add `--runtime node_mod",
    ):
        TARGETS["html"].write(made, tmp_path / "model.html", DESCRIPTION)
    with pytest.raises(ConfigError, match=r"^model=0\.0 GB: more than the 2 GB of an ONNX file; use --to torch$"):
        TARGETS["onnx"].write(made, tmp_path / "model.onnx", DESCRIPTION)
