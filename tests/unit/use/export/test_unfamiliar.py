"""How unlike the training images an image is, in exported files: the percentiles of `predict`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for
from tests.unit.use.export.test_targets import photos_of, written

from vitreous.training.fit.familiarity import SCORES, Familiarity, head_inputs, unit_length
from vitreous.use.export.proof import python_answer
from vitreous.use.export.whole import Unfamiliar
from vitreous.use.predict.predictor import Predictor

THRESHOLDS = (0.2, 0.4, 0.5, 0.6, 0.8)


def familiar_predictor(score: str, *, several: bool = False) -> Predictor:
    """Return a predictor that has seen noise as training and validation images."""
    made = predictor_for(models.make_model("token"), THRESHOLDS if several else None)
    pixels = [made.preprocess.pixels(photo) for photo in photos_of(60, 9, 14)]
    features, logits = head_inputs(made.model, [made.preprocess.normalize(torch.stack(pixels))])
    found = Familiarity(unit_length(features[:30]).half(), torch.arange(30) % 5, several, 0.1, score)
    found = replace(found, known=found.scores(score, features[30:], logits[30:]))
    vars(made)["familiarity"] = found  # as if read from its file
    return made


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("score", list(SCORES))
def test_percentiles_are_those_of_predict(score: str, several: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    features, logits = torch.randn(500, 24, generator=draw), 3 * torch.randn(500, 5, generator=draw)
    features[::2] += 4  # far from the origin, as features are
    known = Familiarity(unit_length(features[:200]).half(), torch.arange(200) % 7, several, 0.05, score)
    known = replace(known, known=known.scores(score, features[200:300], logits[200:300]))
    found, expected = Unfamiliar(known)(features[300:], logits[300:]), known.unfamiliar(features[300:], logits[300:])
    assert found.dtype == torch.float64
    assert 0 < expected.min() < 0.2
    assert 0.95 < expected.max() < 1
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("values", [[3.0] * 19, [1.0, 1.0, 2.0, 4.0], [-1e30, 0.0, 1e30], [5.0]])
def test_equal_and_extreme_values_have_the_percentiles_of_python(values: list[float]) -> None:
    known = Familiarity(
        torch.ones(1, 2).half(), torch.zeros(1), False, score="energy", known=torch.tensor(values).double()
    )
    logits = torch.tensor([[-level, -torch.inf] for level in (-1e31, -1.0, 0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 1e31)])
    expected = known.unfamiliar(torch.zeros(10, 2), logits)
    np.testing.assert_allclose(Unfamiliar(known)(torch.zeros(10, 2), logits), expected, atol=1e-4)


@pytest.mark.parametrize("several", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("score", ["mahalanobis", *(pytest.param(name, marks=pytest.mark.slow) for name in SCORES)])
@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_file_has_a_second_output(to: str, score: str, several: bool, tmp_path: Path) -> None:
    made = familiar_predictor(score, several=several)
    answer, python = written(made, to, tmp_path), python_answer(made, made.familiarity)
    for shape in ((1, 40, 31), (3, 8, 12), (7, 5, 60)):
        photos = photos_of(*shape)
        (probabilities, percentiles), expected = answer(photos), python(photos)
        np.testing.assert_allclose(probabilities, expected[0], atol=1e-2)
        np.testing.assert_allclose(percentiles, expected[1], atol=1e-2)
        assert percentiles.dtype == np.float64
    assert percentiles.shape == (7,)


def test_probabilities_are_the_first_output_of_an_onnx_file(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs ONNX files")
    made = familiar_predictor("energy")
    written(made, "onnx", tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert [output.name for output in session.get_outputs()] == ["probabilities", "unfamiliar"]
    photos = photos_of(2, 9, 14)
    assert session.run(None, {"photos": photos})[0].shape == (2, 5)


@pytest.mark.slow
def test_weights_of_8_bits_leave_the_statistics_as_they_are(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    quantize = pytest.importorskip("vitreous.use.export.quantize")
    made = familiar_predictor("mahalanobis")
    written(made, "onnx", tmp_path)
    answers = quantize.quantized(tmp_path / "model.onnx", iter([photos_of(1, 9, 14)]), {"name": "small"})
    for name in ("int8-dynamic", "int8-static"):
        stored = {tensor.name: tensor for tensor in onnx.load(tmp_path / f"{name}.onnx").graph.initializer}
        assert stored["unfamiliar.points"].data_type == stored["unfamiliar.matrix"].data_type == onnx.TensorProto.FLOAT
        assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in stored.values())
        assert len(answers[name](photos_of(2, 9, 14))) == 2


def test_description_says_from_which_percentile_photos_are_flagged() -> None:
    from vitreous.training.folder.run_folder import RunFolder
    from vitreous.use.export.description import describe

    described = describe(familiar_predictor("neighbors"), RunFolder(Path("none")), "model")
    assert json.loads(json.dumps(described["unfamiliar"])) == {"score": "neighbors", "flagged_from": 0.95}
