"""ONNX files with weights of 8 bits: the numbers of the rounded model, and nothing else rounded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for
from tests.unit.use.export.test_targets import photos_of

from vitreous.use.export.page.int8 import MATRICES, with_int8_weights
from vitreous.use.export.proof import python_answer
from vitreous.use.export.targets import write_onnx


@pytest.mark.parametrize("kind", ["token", pytest.param("conv", marks=pytest.mark.slow)])
def test_file_gives_the_answers_of_the_rounded_model(kind: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript", reason="PyTorch's exporter to ONNX needs onnxscript")
    pytest.importorskip("onnxruntime", reason="runs ONNX files")
    from vitreous.use.export.quantize import rounded

    made, photos = predictor_for(models.make_model(kind, embed_dim=48)), photos_of(3, 8, 12)
    plain = write_onnx(made, tmp_path / "float32.onnx", {"name": "plain"})
    found = rounded(tmp_path / "float32.onnx", {"name": "small"})["int8-weights"](photos)[0]
    expected = python_answer(replace(made, model=with_int8_weights(made.model)))(photos)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - plain(photos)[0]).max() > 1e-4
    written = onnx.load(tmp_path / "int8-weights.onnx")
    matrices = [tensor for tensor in written.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert len(matrices) == sum(isinstance(module, MATRICES) for module in made.model.modules())
    assert [entry.value for entry in written.metadata_props] == ['"small"']
    assert (tmp_path / "int8-weights.onnx").stat().st_size < (tmp_path / "float32.onnx").stat().st_size


@pytest.mark.slow
def test_all_products_with_weights_are_in_8_bits_but_patches_and_head(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript", reason="PyTorch's exporter to ONNX needs onnxscript")
    pytest.importorskip("onnxruntime", reason="runs ONNX files")
    from vitreous.use.export.quantize import quantized

    made, photos = predictor_for(models.make_model("token", embed_dim=48)), photos_of(3, 8, 12)
    write_onnx(made, tmp_path / "float32.onnx", {"name": "plain"})
    found = quantized(tmp_path / "float32.onnx", iter(photos[:, None]), {"name": "small"})
    head = made.model.head.weight.numpy(force=True)
    for name, answer in found.items():
        np.testing.assert_allclose(answer(photos)[0], python_answer(made)(photos)[0], atol=0.05)
        tensors = onnx.load(tmp_path / f"{name}.onnx").graph.initializer
        num_small = sum(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2 for tensor in tensors)
        assert num_small == sum(isinstance(module, MATRICES) for module in made.model.modules()) - 2
        values = [onnx.numpy_helper.to_array(tensor) for tensor in tensors]
        assert any(np.array_equal(value, head) or np.array_equal(value.T, head) for value in values)
